"""One run: tasks in an order through a real worker process, on a bus of its own in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apps.certify import child
from apps.certify.errors import CertifyError, OutOfRunsError
from apps.certify.processes import kill_all
from apps.certify.state import Probe, State
from bus import Bus, connect
from task.codec import decode, encode
from task.errors import SettingsError
from task.options import WorkerOptions
from task.task import Task
from workers.registry import BUILT_IN

__all__ = ["Kill", "Outcome", "Plan", "Run", "Runner"]

_TOPIC, _DONE, _DEAD = "certify", "certify.done", "certify.dead"
#: Leases tried, in seconds: a worker that holds the interpreter, or a busy machine, loses a short one.
_LEASES = (1.0, 10.0, 60.0)
_TICK = 0.005
#: Options of a worker that are ours to set, so that nothing is received from or sent to a bus of the user's.
_OURS = (
    *("--bus", "--in", "--out", "--topic", "--group", "--done-topic", "--dead-topic", "--delay-topic"),
    *("--processes", "--max-in-progress", "--lifetime", "--status-port", "--log-level", "--log-format"),
)
#: What differs from run to run by nature: times, lengths of time, long hexadecimal numbers such as ids.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")
_LENGTH = re.compile(r"\b\d+(\.\d+)?(e-?\d+)? ?(ns|us|µs|ms|s|sec|seconds|m|min|minutes)\b")
_ID = re.compile(r"\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\b[0-9a-fA-F]{16,}\b")


class Outcome(NamedTuple):
    """How a task ended: a result, or ``dead``. Times and ids in the texts are masked."""

    result: str
    msg: str
    meta: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.result}{f' ({self.msg})' if self.msg else ''}"


class Kill(NamedTuple):
    """Where a process ends: before a line of the worker comes for the ``hit``-th time, or ``after`` seconds."""

    task: int
    place: str
    hit: int = 1
    after: float | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run. ``phases`` are sent and done one after the other; each holds positions of tasks, in order."""

    phases: tuple[tuple[int, ...], ...]
    parallel: int = 1
    kills: tuple[Kill, ...] = ()
    jitter: int | None = None
    record: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of it. ``outcomes`` by position, of every phase; ``places`` are lines that tasks came to."""

    outcomes: tuple[Mapping[int, Outcome], ...]
    state: State
    places: tuple[Kill, ...] = ()
    seconds: Mapping[int, float] = dataclasses.field(default_factory=dict)
    #: Kills that happened.
    killed: int = 0


class Runner:
    """Makes runs of one worker. Same plans are run once, except those in parallel.

    Raises:
        SettingsError: ``flags`` has an option that is not the user's to set here.
    """

    def __init__(
        self,
        target: str,
        tasks: Sequence[Task],
        probe: Probe,
        flags: Sequence[str] = (),
        *,
        patience: float = 120.0,
        runs: int = 200,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        for flag in flags[: flags.index("--") if "--" in flags else None]:
            if flag.partition("=")[0] in (*_OURS, "--drain", "--no-drain"):
                raise SettingsError(
                    f"{flag.partition('=')[0]}: is set by certify, which uses a bus of its own; leave it out"
                )
        self.tasks = tasks
        self.made = 0
        self._target = target
        self._probe = probe
        #: See :class:`Probe`.
        self.unseen = probe.unseen
        self._flags = tuple(flags)
        self._patience = patience
        self._runs = runs
        self._tell = tell
        self._known: dict[Plan, Run] = {}

    @property
    def watched(self) -> bool:
        """Whether the worker is Python code of the user's, whose lines can be seen."""
        return self._target not in BUILT_IN

    def run(self, plan: Plan) -> Run:
        """Make the run, or tell what came of the same one before.

        Raises:
            OutOfRunsError: as many as allowed were made.
            CertifyError: it did not come to an end, or the state cannot be seen.
            SettingsError: the worker cannot be started so.
        """
        if plan in self._known and plan.jitter is None:
            return self._known[plan]
        for lease in _LEASES:
            found = self._once(plan, lease)
            if found is not None:
                self._known[plan] = found
                return found
        raise CertifyError(
            f"the worker loses a lease of {_LEASES[-1]:g} s: it holds the interpreter, or the machine hangs"
        )

    def again(self, plan: Plan) -> Run:
        """The same run anew, to see whether the same comes of it."""
        self._known.pop(plan, None)
        return self.run(plan)

    def close(self) -> None:
        """Leave the state fresh."""
        self._probe.reset()

    def _once(self, plan: Plan, lease: float) -> Run | None:
        """None if a lease was lost, so that tasks were done twice for no fault of the worker's."""
        if self.made >= self._runs:
            raise OutOfRunsError(f"{self._runs} runs were made: --runs allows more")
        self.made += 1
        self._tell(f"run {self.made}: {_words(plan)}")
        self._probe.reset()
        with tempfile.TemporaryDirectory(prefix="taskbus-certify-") as folder:
            return _Execution(self, Path(folder), plan, lease).run()

    def command(self, orders: Path, options: Sequence[str]) -> list[str]:
        """The command of a worker process. Our options come first: what follows may be the program of a task."""
        if not self.watched:
            return [sys.executable, "-P", "-m", "apps.cli.main", "worker", self._target, *options, *self._flags]
        return [sys.executable, "-P", child.__file__, str(orders), self._target, *options, *self._flags]


class _Execution:
    """One run under way."""

    def __init__(self, runner: Runner, folder: Path, plan: Plan, lease: float) -> None:
        self._runner = runner
        self._folder = folder
        self._plan = plan
        self._url = f"sqlite:{folder / 'bus.db'}?lease={lease:g}s&synchronous=normal"
        self._deadline = time.monotonic() + runner._patience
        self._log = folder / "log.jsonl"
        self._kills = list(plan.kills)
        self._killed = 0
        self._seconds: dict[int, float] = {}

    def run(self) -> Run | None:
        outcomes: list[Mapping[int, Outcome]] = []
        for number, phase in enumerate(self._plan.phases):
            asyncio.run(self._send(phase))
            while not self._work(number):
                pass
            if self._lost():
                return None
            outcomes.append(asyncio.run(self._outcomes(number, phase)))
        return Run(tuple(outcomes), self._runner._probe.look(), self._places(), dict(self._seconds), self._killed)

    async def _send(self, phase: Sequence[int]) -> None:
        async with connect(self._url) as bus, await bus.producer() as producer:
            for position in phase:
                await producer.publish(_TOPIC, encode(self._runner.tasks[position]))

    def _work(self, phase: int) -> bool:
        """Run a worker process to its end; False if it was killed as planned, and another is to go on."""
        later = next((kill.after for kill in self._kills if kill.after is not None), None)
        orders: dict[str, Any] = {}
        if self._plan.jitter is not None:
            orders["jitter"] = self._plan.jitter + phase
        if self._plan.record:
            orders["record"] = str(self._folder / "places")
        killed = self._folder / "killed"
        if kills := [self._named(kill) for kill in self._kills if kill.after is None]:
            orders |= {"kills": kills, "killed": str(killed)}
        path = self._folder / "orders.json"
        path.write_text(json.dumps(orders))
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                self._runner.command(path, self._options(phase)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        try:
            if later is not None:
                asyncio.run(self._kill_later(process, later))
            code = process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise CertifyError(
                f"{_words(self._plan)}: the tasks were not done within {self._runner._patience:g} s: "
                f"--timeout gives them longer{self._tail()}"
            ) from None
        finally:
            # What the worker started goes with it, as in a container.
            kill_all(process.pid)
            process.wait()
        if code == -signal.SIGKILL and self._kills:
            done = json.loads(killed.read_text()) if later is None else None
            self._kills = [kill for kill in self._kills if done is not None and self._named(kill) != done]
            self._killed += 1
            return False
        if code == 2:
            raise SettingsError(f"the worker cannot be started{self._tail()}")
        if code:
            # A worker that dies of a task is started anew by whoever runs it, and so it is here.
            if time.monotonic() > self._deadline or code in (3, 5):
                raise CertifyError(f"{_words(self._plan)}: the worker ended with {code}{self._tail()}")
            return False
        return True

    def _named(self, kill: Kill) -> list[Any]:
        return [self._runner.tasks[kill.task].id, kill.place, kill.hit]

    def _options(self, phase: int) -> list[str]:
        """What wins over environment and configuration: no bus but ours, and no page that would be served twice."""
        values = {
            **dict.fromkeys(_OURS, ""),
            "--bus": self._url,
            "--topic": _TOPIC,
            "--group": _TOPIC,
            "--done-topic": f"{_DONE}.{phase}",
            "--dead-topic": f"{_DEAD}.{phase}",
            "--processes": "1",
            "--max-in-progress": str(self._plan.parallel),
            "--log-level": "warning",
            "--log-format": "json",
        }
        return ["--drain", "--no-progress", *(part for pair in values.items() for part in pair)]

    async def _kill_later(self, process: subprocess.Popen[bytes], after: float) -> None:
        """Kill the process and what it started, so long after a task was begun."""
        async with connect(self._url) as bus:
            while process.poll() is None and time.monotonic() < self._deadline:
                if (await bus.depth(_TOPIC, _TOPIC)).in_flight:
                    await asyncio.sleep(after)
                    kill_all(process.pid)
                    return
                await asyncio.sleep(_TICK)

    async def _outcomes(self, number: int, phase: Sequence[int]) -> Mapping[int, Outcome]:
        """How the tasks of a phase ended."""
        async with connect(self._url) as bus:
            found = {}
            tasks = self._runner.tasks
            positions = {tasks[position].id: position for position in phase}
            for id, outcome, seconds in await _ends(bus, number):
                if id in positions:
                    found[positions[id]] = outcome
                    self._seconds[positions[id]] = seconds
        missing = [str(tasks[position].value) for position in phase if position not in found]
        if missing:
            raise CertifyError(f"{_words(self._plan)}: tasks came to no end: {', '.join(missing[:5])}{self._tail()}")
        return found

    def _lost(self) -> bool:
        return any(event == "lease-lost" for event, _ in self._events())

    def _events(self) -> list[tuple[str, str]]:
        found = []
        for line in self._log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append((str(entry.get("event", "")), str(entry.get("message", ""))))
        return found

    def _tail(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()][-5:]
        return "".join(f"\n  {line[:500]}" for line in lines)

    def _places(self) -> tuple[Kill, ...]:
        path = self._folder / "places"
        if not path.exists():
            return ()
        positions = {task.id: position for position, task in enumerate(self._runner.tasks)}
        found = (json.loads(line) for line in path.read_text().splitlines())
        return tuple(Kill(positions[id], place, hit) for id, place, hit in found if id in positions)


async def _ends(bus: Bus, phase: int) -> list[tuple[str, Outcome, float]]:
    """The ends of all tasks of a phase, in the order of their coming, dead ones last."""
    found = []
    for peeked in await bus.peek(f"{_DONE}.{phase}", None, 1_000_000):
        task = decode(peeked.body)
        seconds = (task.completed - task.started).total_seconds() if task.started and task.completed else 0.0
        outcome = Outcome(str(task.result), _masked(task.msg), _meta(task.meta))
        found.append((str(task.id), outcome, seconds))
    ended = {id for id, _, _ in found}
    for peeked in await bus.peek(f"{_DEAD}.{phase}", None, 1_000_000):
        letter = json.loads(peeked.body)
        id = str(letter.get("id") or decode(str(letter.get("body", "")).encode()).id)
        if id not in ended:
            found.append((id, Outcome("dead", f"{letter['code']}: {_masked(letter['reason'])}", ()), 0.0))
    return found


def _masked(text: str) -> str:
    for pattern, instead in ((_MOMENT, "<time>"), (_ID, "<id>"), (_LENGTH, "<length of time>")):
        text = pattern.sub(instead, text)
    return text


def _meta(meta: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, _masked(value)) for key, value in meta.items()))


def _environment() -> dict[str, str]:
    """Ours, without settings that every worker has: the user's bus is not touched, whatever it says."""
    names = {f"TASKBUS_{field.name.rstrip('_').upper()}" for field in dataclasses.fields(WorkerOptions)}
    names |= {f"{name}_FILE" for name in names} | {"TASKBUS_CONFIG"}
    return {name: value for name, value in os.environ.items() if name not in names}


def _words(plan: Plan) -> str:
    """The plan for people."""
    tasks = " then ".join(f"{len(phase)} tasks" if len(phase) > 1 else "1 task" for phase in plan.phases)
    return (
        tasks
        + (f", {plan.parallel} side by side" if plan.parallel > 1 else "")
        + (f", killed {len(plan.kills)} times" if plan.kills else "")
    )
