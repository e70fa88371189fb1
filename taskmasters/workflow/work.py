"""The rows one transaction reads and changes: each is read once, and written once at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import BindParameter, Connection, Insert, Table, Update, bindparam, insert, select, tuple_, update

from task.codec import decode
from task.errors import SettingsError, StateError
from task.task import Task, derive_id
from taskmasters.store import outbox
from taskmasters.store.outbox import Outgoing
from taskmasters.store.schema import insert_new
from taskmasters.workflow import tables
from taskmasters.workflow.book import Book
from taskmasters.workflow.definition import RUN_FROM, Workflow

__all__ = ["ACTIVE", "JobRow", "NodeRow", "NodeState", "Origin", "RunRow", "RunState", "Work", "clean"]

#: Values behind one IN.
_MANY = 300
#: Characters of a text kept for people.
_LONGEST = 1000


class RunState(StrEnum):
    """How a run stands."""

    QUEUING = "Queuing"
    IN_PROGRESS = "InProgress"
    COMPENSATING = "Compensating"
    CANCELLING = "Cancelling"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


#: States of a run whose jobs are being done.
ACTIVE = (RunState.IN_PROGRESS, RunState.COMPENSATING)


class NodeState(StrEnum):
    """How a job of the file stands in a run, and how a task of it does."""

    WAITING = "waiting"  #: for its parents
    RUNNING = "running"  #: it has tasks that have not ended
    SENT = "sent"  #: (a task) or yet to be sent
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


def clean(text: str) -> str:
    """A text for people as every database takes it, cut to a sensible length."""
    return text[:_LONGEST].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Origin:
    """What started a run. ``moment`` is what the times in its templates are taken from."""

    key: str
    meta: dict[str, str]
    moment: float
    #: The request, or done task, that started it; None for cron.
    task: Task | None = None
    #: Whether the task asked for this run, and is told how it ended.
    requested: bool = False

    @property
    def asks_for_part(self) -> bool:
        """Whether the run begins with a later job."""
        return self.requested and RUN_FROM in self.meta

    def write(self, body: bytes) -> bytes:
        """As JSON; ``body`` is the encoded task."""
        data = {"key": self.key, "meta": self.meta, "moment": self.moment, "requested": self.requested}
        return orjson.dumps(data | {"task": body.decode()})

    @classmethod
    def read(cls, stored: bytes) -> Origin:
        """What :meth:`write` wrote."""
        data = orjson.loads(stored)
        task = decode(data["task"].encode(), len(stored) * 4) if data["task"] else None
        return cls(data["key"], data["meta"], data["moment"], task, data["requested"])


@dataclass(slots=True)
class RunRow:
    """See :data:`tables.runs`."""

    id: str
    workflow: str
    definition: str
    state: str
    origin: bytes
    created: float
    moment: float
    started: float | None = None
    ended: float | None = None
    open: int = 0
    failing: str = ""
    error: str = ""
    new: bool = False
    before: tuple[Any, ...] = ()
    read: Origin | None = None

    def changing(self) -> tuple[Any, ...]:
        """What may change, in the order of :data:`_RUN_CHANGES`."""
        return (self.state, self.started, self.ended, self.open, self.failing, self.error)

    @property
    def from_(self) -> Origin:
        """What started it."""
        if self.read is None:
            self.read = Origin.read(self.origin)
        return self.read


@dataclass(slots=True)
class NodeRow:
    """See :data:`tables.nodes`."""

    run: str
    name: str
    state: str = NodeState.WAITING
    waits: int = 0
    met: int = 0
    total: int = 0
    rest: int = 0
    failed: int = 0
    skipped: int = 0
    started: float | None = None
    ended: float | None = None
    error: str = ""
    new: bool = False
    before: tuple[Any, ...] = ()

    def changing(self) -> tuple[Any, ...]:
        """What may change, in the order of :data:`_NODE_CHANGES`."""
        return (
            *(self.state, self.waits, self.met, self.total, self.rest),
            *(self.failed, self.skipped, self.started, self.ended, self.error),
        )


@dataclass(slots=True)
class JobRow:
    """See :data:`tables.jobs`; without the task's body."""

    id: str
    run: str
    node: str
    number: int
    state: str
    attempt: int
    item: bytes
    outcome: bytes
    due: float
    deadline: float | None
    ended: float | None = None
    body: bytes = b""
    new: bool = False
    before: tuple[Any, ...] = field(default=())

    def changing(self) -> tuple[Any, ...]:
        """What may change, in the order of :data:`_JOB_CHANGES`."""
        return (self.state, self.attempt, self.outcome, self.due, self.deadline, self.ended)


_RUN_CHANGES = ("state", "started", "ended", "open", "failing", "error")
_NODE_CHANGES = ("state", "waits", "met", "total", "rest", "failed", "skipped", "started", "ended", "error")
_JOB_CHANGES = ("state", "attempt", "outcome", "due", "deadline", "ended")
_RUN_KEYS = ("id", "workflow", "definition", "origin", "created", "moment", *_RUN_CHANGES)
_NODE_KEYS = ("run", "name", *_NODE_CHANGES)
_JOB_KEYS = ("id", "run", "node", "number", "state", "attempt", "item", "outcome", "due", "deadline", "ended", "body")
_JOB_COLUMNS = [tables.jobs.c[key] for key in _JOB_KEYS if key != "body"]

# Statements are made once: making one takes longer than to do it.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_RUNS = select(tables.runs).where(tables.runs.c.id.in_(_IDS)).order_by(tables.runs.c.id).with_for_update()
_NODES = select(tables.nodes).where(
    tuple_(tables.nodes.c.run, tables.nodes.c.name).in_(bindparam("keys", expanding=True))
)
_ALL_NODES = select(tables.nodes).where(tables.nodes.c.run == bindparam("of"))
_JOBS = select(*_JOB_COLUMNS).where(tables.jobs.c.id.in_(_IDS))
_JOBS_OF = select(*_JOB_COLUMNS).where(tables.jobs.c.run == bindparam("of"), tables.jobs.c.node == bindparam("name"))


@lru_cache(maxsize=16)
def _inserting(table: Table) -> Insert:
    return insert(table)


@lru_cache(maxsize=16)
def _updating(table: Table, changes: tuple[str, ...], identity: tuple[str, ...]) -> Update:
    which = [table.c[key] == bindparam(f"old_{key}") for key in identity]
    return update(table).where(*which).values({key: bindparam(key) for key in changes})


class Work:
    """One transaction at the moment ``now``."""

    def __init__(self, tx: Connection, book: Book, now: float) -> None:
        self.tx = tx
        self.book = book
        self.now = now
        self._runs: dict[str, RunRow] = {}
        self._nodes: dict[tuple[str, str], NodeRow] = {}
        self._jobs: dict[str, JobRow] = {}
        self._attempts: list[dict[str, Any]] = []
        self._outgoing: list[Outgoing] = []
        self._new_definitions: dict[str, Workflow] = {}
        #: Workflows of which a run was created or has ended: more may begin.
        self.to_admit: set[str] = set()
        #: Nodes that ended, and runs that completed (None): other workflows may wait for them.
        self.ended: deque[tuple[RunRow, NodeRow | None]] = deque()

    def workflow(self, run: RunRow) -> Workflow:
        """What ``run`` keeps to: the workflow as it was when it began."""
        return self.definition(run.definition)

    def definition(self, hash: str) -> Workflow:
        """The workflow of exactly that content."""
        known = self.book.by_hash(hash)
        if known is not None:
            return known
        stored = self.tx.execute(select(tables.definitions.c.body).where(tables.definitions.c.id == hash))
        try:
            return self.book.remember(hash, stored.scalar_one())
        except SettingsError as error:
            raise StateError(f"a run began with a workflow this taskbus cannot read: {error}") from error

    # Runs

    def run(self, id: str) -> RunRow | None:
        """The run, locked until the transaction ends."""
        if id not in self._runs:
            self.load_runs([id])
        return self._runs.get(id)

    def load_runs(self, ids: Iterable[str]) -> None:
        """Read and lock these. In order of their ids, so that two who do so do not wait for each other."""
        for some in _slices(sorted({id for id in ids if id not in self._runs})):
            for row in self.tx.execute(_RUNS, {"ids": some}):
                run = RunRow(**row._mapping)
                run.before = run.changing()
                self._runs[run.id] = run

    def add_run(self, workflow: Workflow, origin: Origin, body: bytes) -> RunRow | None:
        """A new run that waits to begin; None if there is one with this key already."""
        id = derive_id("workflow-run", workflow.id, origin.key)
        if self.run(id) is not None:
            return None
        run = RunRow(
            *(id, workflow.id, workflow.hash, RunState.QUEUING, origin.write(body), self.now, origin.moment), new=True
        )
        self._runs[id] = run
        self._new_definitions[workflow.hash] = workflow
        self.to_admit.add(workflow.id)
        return run

    def sibling(self, run: RunRow, workflow: str) -> RunRow | None:
        """The run of another workflow with the same key."""
        return self.run(derive_id("workflow-run", workflow, run.from_.key))

    # Nodes

    def node(self, run: RunRow, name: str) -> NodeRow:
        """How the node stands in the run."""
        found = self._nodes.get((run.id, name))
        if found is None:
            self.load_nodes([(run.id, name)])
            found = self._nodes[run.id, name]
        return found

    def find_node(self, run: str, name: str) -> NodeRow | None:
        """The same by id; None if there is none."""
        self.load_nodes([(run, name)])
        return self._nodes.get((run, name))

    def add_node(self, run: RunRow, name: str, waits: int) -> None:
        """A node that waits for so many."""
        self._nodes[run.id, name] = NodeRow(run.id, name, waits=waits, new=True)

    def load_nodes(self, keys: Iterable[tuple[str, str]]) -> None:
        """Read these."""
        for some in _slices([key for key in dict.fromkeys(keys) if key not in self._nodes]):
            self._take_nodes(self.tx.execute(_NODES, {"keys": some}))

    def all_nodes(self, run: RunRow) -> list[NodeRow]:
        """Every node of the run."""
        self._take_nodes(self.tx.execute(_ALL_NODES, {"of": run.id}))
        return [node for node in self._nodes.values() if node.run == run.id]

    def _take_nodes(self, rows: Iterable[Any]) -> None:
        for row in rows:
            if (row.run, row.name) not in self._nodes:
                node = NodeRow(**row._mapping)
                node.before = node.changing()
                self._nodes[node.run, node.name] = node

    # Jobs

    def job(self, id: str) -> JobRow | None:
        """The task of that id, if it was loaded or made here."""
        return self._jobs.get(id)

    def load_jobs(self, ids: Iterable[str]) -> None:
        """Read those of these ids that are tasks of ours."""
        # Ids of ours have one length; others come from elsewhere and may be anything.
        wanted = sorted({id for id in ids if len(id) == 32 and id.isascii() and id not in self._jobs})
        for some in _slices(wanted):
            self._take_jobs(self.tx.execute(_JOBS, {"ids": some}))

    def jobs_of(self, run: RunRow, node: str) -> list[JobRow]:
        """Every task of a node, in order. Those changed here are as they are now."""
        rows = self.tx.execute(_JOBS_OF, {"of": run.id, "name": node})
        stored = [self._jobs.get(row.id) or _job(row) for row in rows]
        fresh = [job for job in self._jobs.values() if job.new and job.run == run.id and job.node == node]
        return sorted([*stored, *fresh], key=lambda job: job.number)

    def late_jobs(self, limit: int) -> list[JobRow]:
        """Up to ``limit`` tasks whose done task should have come by now."""
        query = select(*_JOB_COLUMNS).where(tables.jobs.c.deadline <= self.now).limit(limit)
        return self._take_jobs(self.tx.execute(query))

    def open_jobs(self, run: RunRow) -> list[JobRow]:
        """The tasks of the run that have not ended."""
        jobs = tables.jobs.c
        query = select(*_JOB_COLUMNS).where(jobs.run == run.id, jobs.state == NodeState.SENT)
        return [job for job in self._take_jobs(self.tx.execute(query)) if job.state == NodeState.SENT]

    def body(self, job: JobRow) -> bytes:
        """The task as it was first sent."""
        if not job.body:
            job.body = self.tx.execute(select(tables.jobs.c.body).where(tables.jobs.c.id == job.id)).scalar_one()
        return job.body

    def add_job(self, job: JobRow) -> None:
        """A new task."""
        self._jobs[job.id] = job

    def _take_jobs(self, rows: Iterable[Any]) -> list[JobRow]:
        found = []
        for row in rows:
            job = self._jobs.get(row.id)
            if job is None:
                job = self._jobs[row.id] = _job(row)
            found.append(job)
        return found

    # What follows

    def send(self, message: Outgoing) -> None:
        """Have it sent once this is committed."""
        self._outgoing.append(message)

    def attempt(self, job: JobRow, result: str, msg: str) -> None:
        """The present attempt at ``job`` has ended."""
        self._attempts.append(
            {
                "job": job.id,
                "attempt": job.attempt,
                "run": job.run,
                "due": job.due,
                "ended": self.now,
                "result": result,
                "msg": clean(msg),
            }
        )

    def flush(self) -> None:
        """Write what has changed."""
        insert_new(self.tx, tables.definitions, [{"id": h, "body": w.body} for h, w in self._new_definitions.items()])
        self._new_definitions.clear()
        self._write(tables.runs, self._runs.values(), _RUN_KEYS, _RUN_CHANGES, ("id",))
        self._write(tables.nodes, self._nodes.values(), _NODE_KEYS, _NODE_CHANGES, ("run", "name"))
        self._write(tables.jobs, self._jobs.values(), _JOB_KEYS, _JOB_CHANGES, ("id",))
        insert_new(self.tx, tables.attempts, self._attempts)
        self._attempts.clear()
        outbox.put(self.tx, *self._outgoing)
        self._outgoing.clear()

    def _write(
        self,
        table: Any,
        rows: Collection[RunRow] | Collection[NodeRow] | Collection[JobRow],
        keys: Sequence[str],
        changes: Sequence[str],
        identity: Sequence[str],
    ) -> None:
        added, changed = [], []
        for row in rows:
            now = row.changing()
            if row.new:
                added.append({key: _plain(getattr(row, key)) for key in keys})
                row.new = False
            elif now != row.before:
                values = {key: _plain(value) for key, value in zip(changes, now, strict=True)}
                changed.append(values | {f"old_{key}": getattr(row, key) for key in identity})
            row.before = now
        if added:
            self.tx.execute(_inserting(table), added)
        if changed:
            self.tx.execute(_updating(table, tuple(changes), tuple(identity)), changed)


def _job(row: Any) -> JobRow:
    job = JobRow(**row._mapping)
    job.before = job.changing()
    return job


def _plain(value: Any) -> Any:
    """A driver may write a member of an enumeration by its name."""
    return str(value) if isinstance(value, StrEnum) else value


def _slices(items: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _MANY):
        yield list(items[start : start + _MANY])
