"""How a run goes through its graph: what follows when a node begins or ends. Every step is cheap, and done once.

A node counts the parents it waits for, and a run the nodes that have not ended, so that the end of a task costs the
same in a run of ten as in one of a hundred thousand.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

from task.codec import encode_done
from task.errors import TaskError
from task.task import Task
from task.times import format_time
from taskmasters.store.outbox import Outgoing
from taskmasters.workflow.definition import RUN, RUN_FROM, WORKFLOW, Node, On, Policy
from taskmasters.workflow.making import Maker, RunResults
from taskmasters.workflow.reading import REQUESTED
from taskmasters.workflow.work import JobRow, NodeRow, NodeState, RunRow, RunState, Work, clean

__all__ = ["Walk"]


class Walk:
    """One run in one transaction."""

    def __init__(self, work: Work, run: RunRow, done_topic: str | None) -> None:
        self._work = work
        self._run = run
        self._definition = work.workflow(run)
        self._done_topic = done_topic
        self._ended: deque[NodeRow] = deque()
        self._kept: set[str] | None = None
        origin = run.from_
        #: The jobs of a run that was asked to begin with a later one. Of the others it knows nothing: they count as no
        #: parents. None if it is a run of all jobs.
        self._part = self._definition.part(origin.meta[RUN_FROM]) if origin.asks_for_part else None
        # What ended in the transaction in which this run begins is seen when it begins, and told afterwards.
        self._counted: set[tuple[str, str, str]] = set()

    def begin(self) -> None:
        """Start what waits for nothing."""
        run, definition = self._run, self._definition
        nodes = [node for node in definition.nodes.values() if self._part is None or node.name in self._part]
        run.state, run.started, run.open = RunState.IN_PROGRESS, self._work.now, len(nodes)
        waits = {node.name: self._waits(node) for node in nodes}
        for node in definition.nodes.values():
            self._work.add_node(run, node.name, waits.get(node.name, 0))
            if node.name not in waits:
                left_out = self._row(node.name)
                left_out.state, left_out.ended = NodeState.SKIPPED, self._work.now
        for node in nodes:
            if not waits[node.name] and node.each is None:
                self._start(node)
            for workflow, job in self._outside(node):
                other = self._work.sibling(run, workflow)
                row = None if other is None else self._work.find_node(other.id, job)
                if other is not None and row is not None and row.ended is not None:
                    self._counted.add((node.name, workflow, job))
                    self._met(node, row, self._work.workflow(other).node(job))
        self._settle()

    def outside_ended(self, name: str, other: RunRow, row: NodeRow) -> None:
        """A job of another workflow's run has ended that the node ``name`` waits for, if the run is of that kind."""
        node = self._definition.nodes.get(name)
        parent = (other.workflow, row.name)
        if node is not None and parent in self._outside(node) and (name, *parent) not in self._counted:
            self._met(node, row, self._work.workflow(other).node(row.name))
            self._settle()

    def job_ended(self, job: JobRow, ok: bool, msg: str) -> None:
        """A task has completed or failed for good."""
        job.state = NodeState.COMPLETED if ok else NodeState.FAILED
        job.ended, job.deadline = self._work.now, None
        row = self._row(job.node)
        row.rest -= 1
        if not ok:
            self._count_failure(row, f"task {job.number}: {msg}" if row.total > 1 else msg)
        for name in self._definition.followers(job.node):
            self._follow(self._definition.node(name), job, ok)
        if row.rest == 0:
            self._end(row, NodeState.FAILED if row.failed else NodeState.COMPLETED)
        self._settle()

    def cancel(self) -> None:
        """End everything now. What was sent cannot be called back; its done tasks will be passed over."""
        run, now = self._run, self._work.now
        for job in self._work.open_jobs(run):
            self._work.attempt(job, "cancelled", "the run was cancelled")
            job.state, job.ended, job.deadline = NodeState.CANCELLED, now, None
        for row in self._work.all_nodes(run):
            if row.state in (NodeState.WAITING, NodeState.RUNNING):
                row.state, row.ended = NodeState.CANCELLED, now
        run.error = clean(f"{run.error}; cancelled" if run.error else "cancelled")
        self._finish(RunState.CANCELLED)

    # Nodes

    def _row(self, name: str) -> NodeRow:
        return self._work.node(self._run, name)

    def _outside(self, node: Node) -> tuple[tuple[str, str], ...]:
        return node.outside if self._part is None else ()

    def _waits(self, node: Node) -> int:
        """How many parents it waits for in this run."""
        if self._part is None:
            return node.waits
        return sum(parent in self._part for parent in node.depends_on)

    def _holds(self, node: Node, results: RunResults) -> bool:
        """Whether its conditions do, but for those on jobs that are no part of the run."""
        part = self._part
        return all(
            results.holds(condition)
            for condition in node.conditions
            if part is None or condition.job in part or condition.job == REQUESTED
        )

    def _start(self, node: Node) -> None:
        row = self._row(node.name)
        row.started = self._work.now
        maker = Maker(self._work, self._definition, self._run, node)
        results = RunResults(self._work, self._run)
        if not self._holds(node, results):
            self._end(row, NodeState.SKIPPED)
            return
        made: list[JobRow] = []
        try:
            if node.undoes is not None:
                done = [job for job in results.ended(node.undoes) if job.state == NodeState.COMPLETED]
                for job in done:
                    made.append(maker.make_for(job, self._own(node.undoes, job.number)))
            else:
                made.extend(maker.make(number, item, results) for number, item in enumerate(maker.items()))
        except (TaskError, ValueError) as error:
            self._count_failure(row, str(error))
            self._end(row, NodeState.FAILED)
            return
        for job in made:
            maker.send(job)
        self._set_total(node.name, len(made))
        if not made:
            self._end(row, NodeState.COMPLETED if node.undoes is None else NodeState.SKIPPED)

    def _set_total(self, name: str, total: int) -> None:
        """The node has that many tasks, and so have the nodes that are for each of them."""
        names = [name]
        while names:
            row = self._row(names.pop())
            row.state, row.total, row.rest = NodeState.RUNNING, total, total
            names += self._definition.followers(row.name)

    def _follow(self, node: Node, job: JobRow, ok: bool) -> None:
        """A task that ``node`` is for each of has ended."""
        row = self._row(node.name)
        row.started = row.started or self._work.now
        results = self._own(job.node, job.number)
        if ok and self._may_start(node.name) and self._holds(node, results):
            maker = Maker(self._work, self._definition, self._run, node)
            try:
                maker.send(maker.make_for(job, results))
                return
            except (TaskError, ValueError) as error:
                self._count_failure(row, f"task {job.number}: {error}")
        else:
            row.skipped += 1
        row.rest -= 1
        for name in self._definition.followers(node.name):
            self._follow(self._definition.node(name), JobRow(*_nobody(job, node.name)), ok=False)
        if row.rest == 0:
            self._end(row, _end_state(row))

    def _own(self, name: str, number: int) -> RunResults:
        """What is known by a task that is for one task of ``name``."""
        names = {name}
        node = self._definition.node(name)
        while node.each is not None:
            names.add(node.each)
            node = self._definition.node(node.each)
        return RunResults(self._work, self._run, frozenset(names), number)

    def _count_failure(self, row: NodeRow, msg: str) -> None:
        row.failed += 1
        row.error = row.error or clean(msg)

    def _end(self, row: NodeRow, state: NodeState) -> None:
        if state is NodeState.COMPLETED and row.total and row.skipped == row.total:
            state = NodeState.SKIPPED
        row.state, row.ended = state, self._work.now
        self._run.open -= 1
        self._ended.append(row)

    # What follows

    def _settle(self) -> None:
        """Go on until nothing follows any more."""
        while True:
            while self._ended:
                self._go_on(self._ended.popleft())
            if self._run.open or not self._close():
                return

    def _go_on(self, row: NodeRow) -> None:
        definition = self._definition
        node = definition.node(row.name)
        if row.state == NodeState.FAILED and node.on_failure is not Policy.CONTINUE and not self._run.failing:
            self._run.failing = node.on_failure
            self._run.error = clean(f"{row.name}: {row.error}")
            self._skip_rest()
        for name in definition.dependents(row.name):
            self._met(definition.node(name), row, node)
        if not row.total:
            for name in definition.followers(row.name):
                follower = self._row(name)
                if follower.state in (NodeState.WAITING, NodeState.RUNNING):
                    self._end(follower, NodeState.COMPLETED if row.state == NodeState.COMPLETED else NodeState.SKIPPED)
        self._work.ended.append((self._run, row))

    def _met(self, child: Node, row: NodeRow, node: Node) -> None:
        """The parent ``node`` of ``child`` has ended, as ``row`` says."""
        waiting = self._row(child.name)
        if waiting.state != NodeState.WAITING:
            return
        met = _satisfied(child.on, row, node)
        waiting.waits -= 1
        waiting.met += met
        if met and (child.any or waiting.waits == 0):
            self._start(child)
        elif (not met and not child.any) or waiting.waits == 0:
            self._end(waiting, NodeState.SKIPPED)

    def _skip_rest(self) -> None:
        """The run has failed: nothing more is started but what is there for failures."""
        keep = self._keep()
        for row in self._work.all_nodes(self._run):
            if row.state == NodeState.WAITING and row.name not in keep:
                self._end(row, NodeState.SKIPPED)

    def _keep(self) -> set[str]:
        if self._kept is None:
            self._kept = set()
            for row in self._work.all_nodes(self._run):
                if row.state in (NodeState.RUNNING, NodeState.FAILED):
                    self._kept |= self._definition.handlers(row.name)
        return self._kept

    def _may_start(self, name: str) -> bool:
        return self._run.failing not in (Policy.STOP, Policy.COMPENSATE) or name in self._keep()

    def _close(self) -> bool:
        """No node is open. Whether there is more to do."""
        run, undo = self._run, self._definition.undo
        if run.failing == Policy.COMPENSATE:
            run.failing, run.state, run.open = "compensating", RunState.COMPENSATING, len(undo)
            for node in undo.values():
                self._work.add_node(run, node.name, node.waits)
            for node in list(undo.values())[:1]:
                self._start(node)
            return True
        if run.failing == "compensating":
            failed = [row.name for name in undo if (row := self._row(name)).failed]
            if failed:
                run.error = clean(f"{run.error}; failed: {', '.join(failed)}")
        self._finish(RunState.FAILED if run.failing else RunState.COMPLETED)
        return False

    def _finish(self, state: RunState) -> None:
        run = self._run
        run.state, run.ended, run.open = state, self._work.now, 0
        self._work.to_admit.add(run.workflow)
        if self._done_topic is not None:
            body = _done_task(run, self._definition.id)
            self._work.send(Outgoing(f"{run.id}.done", self._done_topic, body, self._work.now))
        if state is RunState.COMPLETED:
            self._work.ended.append((run, None))


def _satisfied(on: On, row: NodeRow, node: Node) -> bool:
    if on is On.ENDED:
        return True
    if on is On.FAILED:
        return row.state == NodeState.FAILED
    return row.state == NodeState.COMPLETED or (row.state == NodeState.FAILED and node.on_failure is Policy.CONTINUE)


def _end_state(row: NodeRow) -> NodeState:
    return NodeState.FAILED if row.failed else NodeState.COMPLETED


def _nobody(job: JobRow, node: str) -> tuple[str, str, str, int, str, int, bytes, bytes, float, None]:
    """Stands for a task of ``node`` that was never made."""
    return ("", job.run, node, job.number, NodeState.SKIPPED, 0, job.item, b"", job.due, None)


def _done_task(run: RunRow, workflow: str) -> bytes:
    """Tells the end of a run: the request as a done task, or one of the workflow's own with the id of the run."""
    origin = run.from_
    task = origin.task if origin.requested else None
    if task is None:
        task = Task(workflow, origin.key, created=_moment(run.created), id=run.id, meta=origin.meta)
    completed = run.state == RunState.COMPLETED
    return encode_done(
        task,
        "complete" if completed else "error",
        "" if completed else run.error,
        format_time(_moment(run.started or run.created)),
        format_time(_moment(run.ended or run.created)),
        {WORKFLOW: workflow, RUN: run.id},
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
