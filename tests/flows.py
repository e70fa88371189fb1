"""A workflow engine in the hands of a test: no bus, and a clock that stands still until it is told to move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from task.codec import decode, encode_done
from task.task import Task
from taskmasters.store import Store, open_store, outbox
from taskmasters.store.inbox import Arrival
from taskmasters.store.outbox import OUTBOX
from taskmasters.workflow.book import Book
from taskmasters.workflow.engine import WorkflowEngine
from taskmasters.workflow.load import load_workflows, read_stored
from taskmasters.workflow.looking import list_runs, show_jobs, show_run
from taskmasters.workflow.tables import TABLES

__all__ = ["START", "Flow"]

Returned = TypeVar("Returned")

#: 2026-01-01T00:00:00Z.
START = 1767225600.0
_AT = "2026-01-01T00:00:00.000Z"


class Flow:
    """The engine on workflow files, given as name → text, in ``folder``."""

    def __init__(self, folder: Path, files: Mapping[str, str] | str, state: str = ":memory:") -> None:
        self.folder = folder / "flows"
        self.folder.mkdir(exist_ok=True)
        for name, text in ({"flow": files} if isinstance(files, str) else files).items():
            (self.folder / f"{name}.toml").write_text(text)
        self.state = state
        self.now = START
        self.store: Store = open_store(state, OUTBOX, TABLES)
        self.load()
        #: Every task sent, in order; ends of runs are in ``ends``.
        self.all: list[Task] = []
        self.ends: list[Task] = []

    def load(self) -> None:
        """Begin as a taskmaster does that is started now."""
        self.engine = WorkflowEngine(Book(load_workflows(str(self.folder)), read_stored), "done")
        self.store.call(lambda tx: self.engine.open(tx, self.now))

    def restart(self) -> None:
        """Forget everything that is not in the state."""
        if self.state != ":memory:":
            self.store.close()
            self.store = open_store(self.state, OUTBOX, TABLES)
        self.load()

    def request(self, name: str = "flow", id: str = "request", value: str = "", **meta: str) -> str:
        """Ask for a run; its fate."""
        arrival = Arrival(Task(name, value, id=id, meta=meta), id)
        return self.store.call(lambda tx: self.engine.requests(tx, [arrival], self.now))[0].name

    def tick(self, seconds: float = 0.0) -> list[Task]:
        """Let time pass; what is sent then."""
        self.now += seconds
        firings = self.engine.due(self.now)
        more = self.store.call(lambda tx: self.engine.tick(tx, firings, self.now))
        while more:
            more = self.store.call(lambda tx: self.engine.tick(tx, [], self.now))
        return self.sent()

    def sent(self) -> list[Task]:
        """The tasks that are to be sent by now and were not looked at before."""
        found: list[Task] = []
        while batch := self.store.call(lambda tx: outbox.due(tx, self.now, 500)):
            self.store.call(lambda tx, some=batch: outbox.sent(tx, some, self.now))  # type: ignore[misc]
            for stored in batch:
                task = decode(stored.message.body)
                (self.ends if stored.message.topic == "done" else found).append(task)
        self.all += found
        return found

    def done(self, *tasks: Task, result: str = "complete", msg: str = "", **meta: str) -> list[str]:
        """These are done; their fates."""
        arrivals = [
            Arrival(decode(encode_done(task, result, msg or f"did {task.value}", _AT, _AT, meta)), task.id or "")
            for task in tasks
        ]
        return [fate.name for fate in self.store.call(lambda tx: self.engine.done(tx, arrivals, self.now))]

    def finish(self, *failing: str) -> list[str]:
        """Everything that is sent completes, but for the types ``failing``; the values in order."""
        values: list[str] = []
        while tasks := self.sent():
            values += [f"{task.type} {task.value}".strip() for task in tasks]
            self.done(*(task for task in tasks if task.type not in failing))
            bad = [task for task in tasks if task.type in failing]
            if bad:
                self.done(*bad, result="error", msg="broken")
        return values

    def values(self) -> list[str]:
        """What is sent now."""
        return [f"{task.type} {task.value}".strip() for task in self.sent()]

    def runs(self, workflow: str | None = None) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        return self.call(lambda tx: list_runs(tx, workflow, [], 1000))[::-1]

    @property
    def run(self) -> dict[str, Any]:
        """The only run, with its jobs."""
        (run,) = self.runs()
        return self.call(lambda tx: show_run(tx, run["run"]))

    @property
    def states(self) -> dict[str, str]:
        """How each job of the only run stands."""
        return {job["job"]: job["state"] for job in self.run["jobs"]}

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """The tasks of the only run with their attempts."""
        (run,) = self.runs()
        return self.call(lambda tx: show_jobs(tx, run["run"], everything=True))

    def call(self, work: Callable[[Connection], Returned]) -> Returned:
        """One transaction."""
        return self.store.call(work)
