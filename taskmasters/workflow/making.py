"""From a node of a run to its tasks: templates filled, ids derived, so that making them again makes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import orjson

from task.codec import decode, encode
from task.task import Dialect, Task, derive_id
from taskmasters.store.outbox import Outgoing
from taskmasters.templates import PARENT, Scope
from taskmasters.workflow.definition import ATTEMPT, RUN, WORKFLOW, Condition, Node
from taskmasters.workflow.definition import Workflow as Definition
from taskmasters.workflow.items import Item, read_item, write_item
from taskmasters.workflow.reading import REQUESTED
from taskmasters.workflow.work import JobRow, NodeState, RunRow, Work

__all__ = ["Maker", "RunResults", "Said", "outgoing_id", "said", "send_again"]


class Said:
    """What a done task said."""

    __slots__ = ("meta", "msg", "result", "value")

    def __init__(self, result: str, value: str, msg: str, meta: Mapping[str, str]) -> None:
        self.result, self.value, self.msg, self.meta = result, value, msg, meta

    @classmethod
    def of(cls, task: Task) -> Said:
        """What this one says."""
        return cls(str(task.result or ""), task.value, task.msg, task.meta)

    def write(self) -> bytes:
        """As JSON, for the state."""
        return orjson.dumps({"result": self.result, "value": self.value, "msg": self.msg, "meta": dict(self.meta)})


def said(job: JobRow) -> Said | None:
    """What the last done task of ``job`` said; None if none has come."""
    if not job.outcome:
        return None
    data = orjson.loads(job.outcome)
    return Said(data["result"], data["value"], data["msg"], data["meta"])


class RunResults:
    """What templates of one task know of the jobs before it.

    ``own`` are the jobs of which it knows only the task with number ``number``: those it is for each task of.
    """

    def __init__(self, work: Work, run: RunRow, own: frozenset[str] = frozenset(), number: int = 0) -> None:
        self._work = work
        self._run = run
        self._own = own
        self._number = number
        self._jobs: dict[str, list[JobRow]] = {}

    def get(self, job: str, field: str, key: str) -> str | None:
        """See :class:`taskmasters.templates.Results`. Of several tasks the values are joined by commas."""
        if field in ("count", "completed", "failed"):
            return str(self._count(job, field))
        values = [value for row in self.ended(job) if (value := _field(row, field, key)) is not None]
        if not values and field == "meta" and self._run.from_.asks_for_part and not self.ended(job):
            # A job that was left out has said nothing; who asked may say it instead.
            return self._run.from_.meta.get(key)
        return ",".join(values) if values else None

    def ended(self, job: str) -> list[JobRow]:
        """The tasks of the job that completed; if none did, those that failed."""
        if job not in self._jobs:
            self._jobs[job] = self._rows(job)
        rows = self._jobs[job]
        return [row for row in rows if row.state == NodeState.COMPLETED] or rows

    def holds(self, condition: Condition) -> bool:
        """Whether the condition is true of every one of them, and there is one."""
        if condition.job == REQUESTED:
            task = self._run.from_.task
            asked = Said("", "", "", self._run.from_.meta) if task is None else Said.of(task)
            return condition.holds(asked.result, asked.value, asked.msg, asked.meta)
        told = [what for row in self.ended(condition.job) if (what := said(row)) is not None]
        return bool(told) and all(condition.holds(w.result, w.value, w.msg, w.meta) for w in told)

    def _rows(self, job: str) -> list[JobRow]:
        if job not in self._own:
            return self._work.jobs_of(self._run, job)
        id = _job_id(self._run, job, self._number)
        self._work.load_jobs([id])
        row = self._work.job(id)
        return [] if row is None else [row]

    def _count(self, job: str, field: str) -> int:
        if job in self._own:
            return sum(field in ("count", row.state) for row in self._rows(job))
        node = self._work.node(self._run, job)
        made = node.total - node.skipped
        return {"count": made, "failed": node.failed, "completed": made - node.rest - node.failed}[field]


def _field(row: JobRow, field: str, key: str) -> str | None:
    if field == "id":
        return row.id
    told = said(row)
    if told is None:
        return None
    if field == "meta":
        return told.meta.get(key)
    if field in ("value", "msg", "result"):
        return str(getattr(told, field))
    return PARENT[f"parent.{field}"](Scope("", parent=Task("job", told.value)), key)


class Maker:
    """Makes the tasks of one node of one run.

    Its methods raise MissingValueError or ValueError if a template cannot be filled.
    """

    def __init__(self, work: Work, definition: Definition, run: RunRow, node: Node) -> None:
        self._work = work
        self._run = run
        self._node = node
        origin = run.from_
        self._definition = definition
        self._when = datetime.fromtimestamp(origin.moment, UTC) + timedelta(seconds=node.offset)
        kept = {key: value for key, value in origin.meta.items() if definition.keep_meta.match(key)}
        self._meta = kept | {WORKFLOW: definition.id, RUN: run.id}
        self._dialect = origin.task.dialect if origin.task is not None else Dialect.TASKBUS
        self._created = datetime.fromtimestamp(work.now, UTC)

    def items(self) -> Sequence[Item]:
        """What the node makes a task each of."""
        if self._node.source is None:
            return (Item(),)
        return self._node.source.items(self._scope("", Item(), 0, RunResults(self._work, self._run)))

    def make(self, number: int, item: Item, results: RunResults) -> JobRow:
        """The task with that number."""
        node, run, now = self._node, self._run, self._work.now
        scope = self._scope(_job_id(run, node.name, number), item, number, results)
        task = Task(
            node.type,
            node.task.render(scope),
            job=node.job,
            created=self._created,
            id=scope.id,
            meta={**self._meta, **{key: text.render(scope) for key, text in node.meta.items()}, ATTEMPT: "1"},
            dialect=self._dialect,
        )
        deadline = None if node.deadline is None else now + node.deadline
        return JobRow(
            *(scope.id, run.id, node.name, number, NodeState.SENT, 1, write_item(item), b"", now, deadline),
            body=encode(task),
            new=True,
        )

    def make_for(self, other: JobRow, results: RunResults) -> JobRow:
        """The task for that task of another node."""
        return self.make(other.number, read_item(other.item), results)

    def send(self, job: JobRow) -> None:
        """Keep a task that was made here, and have it sent once the transaction is committed."""
        self._work.add_job(job)
        self._work.send(Outgoing(outgoing_id(job), self._node.topic, job.body, job.due))

    def _scope(self, id: str, item: Item, number: int, results: RunResults) -> Scope:
        when = self._when
        if item.when is not None:
            when = datetime.fromtimestamp(item.when + self._node.offset, UTC)
        return Scope(
            id,
            when.astimezone(self._definition.zone.info),
            self._run.from_.meta,
            self._run.from_.task,
            item.text,
            number,
            item.row,
            self._run.id,
            self._definition.id,
            results,
        )


def send_again(work: Work, job: JobRow, node: Node) -> None:
    """Have the present attempt at ``job``, which is not the first, sent when it is due."""
    task = decode(work.body(job), len(work.body(job)))
    again = task.replace(meta={**task.meta, ATTEMPT: str(job.attempt)})
    work.send(Outgoing(outgoing_id(job), node.topic, encode(again), job.due))


def outgoing_id(job: JobRow) -> str:
    """The id of the present attempt in the outbox."""
    return f"{job.id}.{job.attempt}"


def _job_id(run: RunRow, node: str, number: int) -> str:
    return derive_id("workflow-job", run.id, node, str(number))
