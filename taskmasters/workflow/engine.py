"""What the workflow taskmaster does at a moment: with done tasks, with requests, and with the time that has passed.

It knows no bus and no clock. Each method works in the transaction it is given and may be called again with the same
arguments if that was undone; what is to be sent is put into the outbox.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from bus.units import format_duration
from bus.url import nearest
from task.codec import encode
from task.outcome import Result
from task.task import Task
from task.times import parse_time
from taskmasters.cron.rules import CRON, instant_text
from taskmasters.cron.scheduler import Firing, Scheduler
from taskmasters.store import outbox
from taskmasters.store.inbox import Arrival, Fate
from taskmasters.store.relay import Refused
from taskmasters.workflow import tables
from taskmasters.workflow.book import Book
from taskmasters.workflow.definition import ATTEMPT, RUN_FROM, RUN_KEY, RUN_MOMENT, Node, Workflow
from taskmasters.workflow.making import Said, outgoing_id, send_again
from taskmasters.workflow.walk import Walk
from taskmasters.workflow.work import ACTIVE, JobRow, NodeState, Origin, RunRow, RunState, Work

__all__ = ["WorkflowEngine"]

#: Tasks that are late, runs that are cancelled, begin or are forgotten, in one transaction.
_BATCH = 500
_FORGOTTEN = 20
_FINE = (Result.COMPLETE, Result.WARN)


class WorkflowEngine:
    """All workflows. ``done_topic`` is where the ends of runs are told; None is nowhere."""

    def __init__(self, book: Book, done_topic: str | None) -> None:
        self._book = book
        self._done_topic = done_topic
        self._scheduler = Scheduler((), {}, 0.0)

    # Time

    def open(self, tx: Connection, now: float, book: Book | None = None) -> None:
        """Find out which instants of cron were dealt with. To be called first, and with every other ``book``."""
        book = book or self._book
        rules = {rule.id: rule for rule in book.cron_rules if rule.enabled}
        known = {}
        for row in tx.execute(select(tables.cron)):
            if row.start in rules and rules[row.start].schedule.text == row.schedule:
                known[row.start] = row.instant
        # What is new begins now, and must be known to have begun should we be away at its first instant.
        _remember(tx, {id: (rule.schedule.text, int(now)) for id, rule in rules.items() if id not in known})
        self._scheduler, self._book = Scheduler(rules.values(), known, now), book
        # Runs that began with older files are known from the start, for what they wait for.
        work = self._work(tx, now)
        active = tables.runs.c.state.in_([str(RunState.QUEUING), *map(str, ACTIVE)])
        older = select(tables.runs.c.definition).where(active).distinct()
        for hash in tx.execute(older).scalars().all():
            work.definition(hash)

    @property
    def wake(self) -> float | None:
        """When the next instant of cron comes due; None if none ever will."""
        return self._scheduler.wake

    def due(self, now: float) -> list[Firing]:
        """The instants that have come due, each once: for :meth:`tick`."""
        return self._scheduler.due(now)

    def again(self, firings: Sequence[Firing], at: float) -> None:
        """The transaction of :meth:`tick` failed: have these come due again."""
        self._scheduler.again(firings, at)

    def upcoming(self) -> dict[str, int | None]:
        """The next instant of each cron start, by workflow and number."""
        return self._scheduler.upcoming()

    def tick(self, tx: Connection, firings: Sequence[Firing], now: float) -> bool:
        """Start runs for these, retry or give up what is late, cancel what is to be. Whether there may be more."""
        work = self._work(tx, now)
        for rule, instant in firings:
            text = instant_text(instant)
            origin = Origin(text, {CRON: text}, instant + rule.offset)
            work.add_run(self._book.crons[rule.id], origin, b"")
        _remember(tx, {rule.id: (rule.schedule.text, instant) for rule, instant in firings})
        late = work.late_jobs(_BATCH)
        for job in late:
            self._late(work, job)
        cancelled = select(tables.runs.c.id).where(tables.runs.c.state == str(RunState.CANCELLING)).limit(_BATCH)
        for id in tx.execute(cancelled).scalars().all():
            self._cancel(work, id)
        self._close(work)
        return len(late) == _BATCH

    def deadline(self, tx: Connection) -> float | None:
        """The next moment at which a task will be late; None if none can be."""
        return tx.execute(select(func.min(tables.jobs.c.deadline))).scalar()

    # Arrivals

    def requests(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Start the runs that are asked for: the type of a request names the workflow."""
        work = self._work(tx, now)
        fates = [self._request(work, task if task.id else task.replace(id=id), id) for task, id in arrivals]
        self._close(work)
        return fates

    def done(self, tx: Connection, arrivals: Sequence[Arrival], now: float) -> list[Fate]:
        """Go on with the runs these tasks belong to, and start those they start."""
        work = self._work(tx, now)
        work.load_jobs(id for _, id in arrivals)
        jobs = [job for _, id in arrivals if (job := work.job(id)) is not None]
        work.load_runs(job.run for job in jobs)
        work.load_nodes((job.run, job.node) for job in jobs)
        fates = [self._done(work, task, id) for task, id in arrivals]
        self._close(work)
        return fates

    def refused(self, tx: Connection, refused: Sequence[Refused], now: float) -> None:
        """The bus will never take these."""
        work = self._work(tx, now)
        for message, reason, _ in refused:
            id, _, attempt = message.id.partition(".")
            work.load_jobs([id])
            job = work.job(id)
            if job is not None and job.state == NodeState.SENT and str(job.attempt) == attempt:
                run = work.run(job.run)
                if run is not None and run.state in ACTIVE:
                    work.attempt(job, "refused", reason)
                    self._walk(work, run).job_ended(job, False, reason)
        self._close(work)

    # Steering and forgetting

    @staticmethod
    def cancel(tx: Connection, run: str) -> bool:
        """Have a run cancelled at the next :meth:`tick`. False if it is not there or has ended."""
        wanted = tables.runs.c.state.in_([str(RunState.QUEUING), *map(str, ACTIVE)])
        found = tx.execute(
            update(tables.runs).where(tables.runs.c.id == run, wanted).values(state=str(RunState.CANCELLING))
        )
        return found.rowcount > 0

    @staticmethod
    def forget(tx: Connection, before: float) -> int:
        """Forget some of the runs that ended before that moment. Returns how many."""
        old = select(tables.runs.c.id).where(tables.runs.c.ended < before).limit(_FORGOTTEN)
        ids = tx.execute(old).scalars().all()
        if ids:
            for table in (tables.attempts, tables.jobs, tables.nodes):
                tx.execute(delete(table).where(table.c.run.in_(ids)))
            tx.execute(delete(tables.runs).where(tables.runs.c.id.in_(ids)))
            unused = tables.definitions.c.id.not_in(select(tables.runs.c.definition))
            tx.execute(delete(tables.definitions).where(unused))
        return len(ids)

    @staticmethod
    def failures(tx: Connection) -> list[tuple[str, str]]:
        """The runs that failed, each with the reason."""
        failed = select(tables.runs.c.id, tables.runs.c.error).where(tables.runs.c.state == str(RunState.FAILED))
        return [(row.id, row.error) for row in tx.execute(failed)]

    # What follows

    def _work(self, tx: Connection, now: float) -> _Work:
        return _Work(tx, self._book, now)

    def _walk(self, work: _Work, run: RunRow) -> Walk:
        if run.id not in work.walks:
            work.walks[run.id] = Walk(work, run, self._done_topic)
        return work.walks[run.id]

    def _request(self, work: _Work, task: Task, id: str) -> Fate:
        workflow = self._book.requested(task.type)
        if workflow is None:
            known = sorted(name for name in self._book.workflows if self._book.requested(name))
            return Fate(
                "dead", "no-workflow", f"there is no workflow {task.type!r} to ask for{nearest(task.type, known)}"
            )
        try:
            moment = parse_time(task.meta[RUN_MOMENT]).timestamp() if RUN_MOMENT in task.meta else None
        except (ValueError, OverflowError):
            return _no_time(task, RUN_MOMENT)
        try:
            if RUN_FROM in task.meta:
                workflow.part(task.meta[RUN_FROM])
        except ValueError as error:
            return Fate("dead", "bad-run-from", f"meta {RUN_FROM!r}: {error}")
        # A request that is tried again, by another workflow or by the retry taskmaster, asks for another run.
        attempt = task.meta.get(ATTEMPT, "1")
        key = task.meta.get(RUN_KEY) or id
        return self._start(work, workflow, task, key if attempt == "1" else f"{key} {attempt}", moment, requested=True)

    def _start(
        self,
        work: _Work,
        workflow: Workflow,
        task: Task,
        key: str,
        moment: float | None = None,
        *,
        requested: bool = False,
    ) -> Fate:
        try:
            nominal = parse_time(task.meta[CRON]) if CRON in task.meta else task.created
        except (ValueError, OverflowError):
            return _no_time(task, CRON)
        seconds = moment if moment is not None else work.now if nominal is None else nominal.timestamp()
        run = work.add_run(workflow, Origin(key, dict(task.meta), seconds, requested=requested), encode(task))
        return Fate("repeated" if run is None else "started")

    def _done(self, work: _Work, task: Task, id: str) -> Fate:
        result = task.result
        if result is None:
            return Fate("unfinished")
        job = work.job(id)
        fates = [] if job is None else [self._job_done(work, job, task, result)]
        fates += [self._start(work, workflow, task, id) for workflow in self._book.started_by(task, result)]
        wrong = [fate for fate in fates if fate.code]
        return (wrong or fates or [Fate("unmatched")])[0]

    def _job_done(self, work: _Work, job: JobRow, task: Task, result: Result) -> Fate:
        run = work.run(job.run)
        if run is None or job.state != NodeState.SENT:
            return Fate("repeated")
        if run.state not in ACTIVE:
            return Fate("late")
        fine = result in _FINE
        if task.meta.get(ATTEMPT, str(job.attempt)) != str(job.attempt):
            # An earlier attempt that was taken for lost. What it did is done; its failure was counted.
            if not fine:
                return Fate("late")
            outbox.withdraw(work.tx, [outgoing_id(job)])
        work.attempt(job, result, task.msg)
        if fine or not self._retry(work, run, job, retriable=result is Result.ERROR):
            job.outcome = Said.of(task).write()
            self._walk(work, run).job_ended(job, fine, task.msg or str(result))
            return Fate("completed" if fine else "failed")
        return Fate("retried")

    def _late(self, work: _Work, job: JobRow) -> None:
        run = work.run(job.run)
        if run is None or run.state not in ACTIVE or job.state != NodeState.SENT:
            job.deadline = None
            return
        limit = work.workflow(run).node(job.node).deadline or 0.0
        msg = f"no done task within {format_duration(limit)}"
        work.attempt(job, "late", msg)
        if not self._retry(work, run, job, retriable=True):
            self._walk(work, run).job_ended(job, False, msg)

    def _retry(self, work: _Work, run: RunRow, job: JobRow, *, retriable: bool) -> bool:
        """Try ``job`` again if it may be. A run that is failing tries nothing again."""
        node: Node = work.workflow(run).node(job.node)
        if not retriable or job.attempt > node.retry.count or run.failing in ("stop", "compensate"):
            return False
        job.due = work.now + node.retry.delay(job.id, job.attempt)
        job.attempt += 1
        job.deadline = None if node.deadline is None else job.due + node.deadline
        send_again(work, job, node)
        return True

    def _cancel(self, work: _Work, id: str) -> None:
        run = work.run(id)
        if run is not None and run.state == RunState.CANCELLING:
            outbox.withdraw(work.tx, [outgoing_id(job) for job in work.open_jobs(run)])
            self._walk(work, run).cancel()

    def _cross(self, work: _Work) -> None:
        """What has ended may be waited for by runs of other workflows, or begin some."""
        while work.ended:
            run, row = work.ended.popleft()
            if row is None or row.state == NodeState.COMPLETED:
                self._begin_after(work, run, None if row is None else row.name)
            for name, job in () if row is None else self._book.waiting(run.workflow, row.name):
                other = work.sibling(run, name)
                if row is not None and other is not None and other.state in ACTIVE:
                    self._walk(work, other).outside_ended(job, run, row)

    def _begin_after(self, work: Work, run: RunRow, job: str | None) -> None:
        for workflow, after in self._book.following(run.workflow, job):
            if after.any or all(self._has_completed(work, run, name, of) for name, of in after.parents):
                origin = run.from_
                body = b"" if origin.task is None else encode(origin.task)
                work.add_run(workflow, Origin(origin.key, origin.meta, origin.moment), body)

    def _has_completed(self, work: Work, run: RunRow, workflow: str, job: str | None) -> bool:
        other = work.sibling(run, workflow)
        if other is None:
            return False
        if job is None:
            return other.state == RunState.COMPLETED
        node = work.find_node(other.id, job)
        return node is not None and node.state == NodeState.COMPLETED

    def _close(self, work: _Work) -> None:
        """Let runs begin that may, and write everything."""
        self._cross(work)
        work.flush()
        while work.to_admit:
            names = sorted(work.to_admit)
            work.to_admit.clear()
            for name in names:
                self._admit(work, name)
            self._cross(work)
            work.flush()

    def _admit(self, work: _Work, name: str) -> None:
        runs = tables.runs.c
        known = self._book.workflows.get(name)
        room = _BATCH
        if known is not None and known.max_runs is not None:
            states = [*map(str, ACTIVE), str(RunState.CANCELLING)]
            active = select(func.count()).where(runs.workflow == name, runs.state.in_(states))
            room = min(room, known.max_runs - work.tx.execute(active).scalar_one())
        if room <= 0:
            return
        queued = select(runs.id).where(runs.workflow == name, runs.state == str(RunState.QUEUING))
        ids = work.tx.execute(queued.order_by(runs.created, runs.moment, runs.id).limit(room)).scalars().all()
        work.load_runs(ids)
        for id in ids:
            run = work.run(id)
            if run is not None:
                self._walk(work, run).begin()
        if len(ids) == _BATCH:
            work.to_admit.add(name)


class _Work(Work):
    """With the walks that were begun in it."""

    def __init__(self, tx: Connection, book: Book, now: float) -> None:
        super().__init__(tx, book, now)
        self.walks: dict[str, Walk] = {}


def _no_time(task: Task, key: str) -> Fate:
    return Fate("dead", f"bad-{key.replace('_', '-')}", f"its meta {key!r} is {task.meta[key][:40]!r}, not a time")


def _remember(tx: Connection, fired: dict[str, tuple[str, int]]) -> None:
    """These instants were dealt with. Under the same schedule an instant never goes back, whoever writes last."""
    table = tables.cron
    known = {row.start: row for row in tx.execute(select(table).where(table.c.start.in_(list(fired))))} if fired else {}
    for start, (schedule, instant) in fired.items():
        row = known.get(start)
        if row is None:
            tx.execute(insert(table).values(start=start, schedule=schedule, instant=instant))
        elif row.schedule != schedule or row.instant < instant:
            tx.execute(update(table).where(table.c.start == start).values(schedule=schedule, instant=instant))
