"""A taskmaster as a real process that is killed, started again at once, killed again …, and at last left alone."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bus import Bus, Consumer, Message, Producer, connect
from task.codec import decode
from tests.crash_matrix.case import Case, Key
from tests.helpers import await_until, catches
from tests.servers.nats import nats_server
from tests.taskbus_command import command_line, environment

__all__ = ["BUSES", "Report", "crash"]

BUSES = ("sqlite", "nats")
_ROOT = str(Path(__file__).parents[2])
#: Seconds without anything new, at the end, after which what is missing is lost.
_PATIENCE = 120.0
#: Seconds without anything new after which nothing more is expected.
_QUIET = 0.7
#: The group of those who look at what is made, and do it.
_CROWD = "crowd"
#: Of how many lives the end is a step, and of how many a moment before it works; that of the others is any moment.
_STEPS, _EARLY = 0.5, 0.1
#: The longest life, in seconds from when it works, or from its start.
_LIFE, _START = 0.5, 0.4


@dataclass
class Report:
    """What came of a run with kills beside one without."""

    case: str
    bus: str
    #: How often it was killed, by what chose the moment, and at which steps.
    kills: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    #: Distinct tasks, and how many more came, with kills and without.
    made: int = 0
    again: int = 0
    again_calm: int = 0
    seconds: float = 0.0
    missing: set[Key] = field(default_factory=set)
    extra: set[Key] = field(default_factory=set)

    def verify(self) -> None:
        """Fail if a task was lost, or one was made that is not made without kills."""
        assert not self.missing, f"{self.case} on {self.bus} lost {len(self.missing)}: {sorted(self.missing)[:5]}"
        assert not self.extra, f"{self.case} on {self.bus} made {len(self.extra)} more: {sorted(self.extra)[:5]}"


async def crash(kind: type[Case], folder: Path, bus: str, *, kills: int, tasks: int, seed: int) -> Report:
    """Run a case with so many kills, and without, on a bus of its own; ``folder`` is its own too."""
    began = time.monotonic()
    report = Report(kind.name, bus)
    killed, wanted = await _run(kind, folder, "killed", bus, kills, tasks, kills, random.Random(seed), report.kills)
    if wanted is None:
        calm, _ = await _run(kind, folder, "calm", bus, 0, tasks, kills, random.Random(seed), Counter())
        assert len(calm.found) == calm.expected, f"{len(calm.found)} tasks without kills, not {calm.expected}"
        wanted = set(calm.found)
        report.again_calm = calm.again
    report.made, report.again = len(killed.found), killed.again
    report.missing, report.extra = wanted - set(killed.found), set(killed.found) - wanted
    steps = folder / "killed" / "steps"
    report.steps = Counter(steps.read_text().splitlines()) if steps.exists() else Counter()
    report.seconds = time.monotonic() - began
    killed.check()
    return report


async def _run(
    kind: type[Case],
    folder: Path,
    label: str,
    bus: str,
    kills: int,
    tasks: int,
    portions: int,
    dice: random.Random,
    killed: Counter[str],
) -> tuple[Case, set[Key] | None]:
    # Both runs take place in a folder of the same name: ids may be derived from paths.
    place = folder / "run"
    place.mkdir(parents=True)
    case = kind(place, tasks, portions)
    with ExitStack() as stack:
        url = stack.enter_context(_bus(bus, place))
        stack.callback(case.close)
        case.prepare()
        async with connect(url) as connection, await connection.producer() as producer:
            await _Drive(case, connection, producer, f"{url}?lease=5s", dice, killed).run(kills)
        wanted = case.wanted()
    place.rename(folder / label)
    return case, wanted


@contextmanager
def _bus(name: str, folder: Path) -> Iterator[str]:
    if name == "sqlite":
        yield f"sqlite:{folder}/work.db"
        return
    data = folder / "server"
    data.mkdir()
    with nats_server(data) as server:
        yield server.url


class _Drive:
    """One run of a case."""

    def __init__(
        self, case: Case, bus: Bus, producer: Producer, url: str, dice: random.Random, killed: Counter[str]
    ) -> None:
        self._case = case
        self._bus = bus
        self._producer = producer
        self._url = url
        self._dice = dice
        self._killed = killed
        self._seen = [(topic, _CROWD) for topic in case.outputs]
        self._fed = 0
        self._last = time.monotonic()

    async def run(self, kills: int) -> None:
        """Kill it so often, and have it finish."""
        async with connect(self._url) as there:
            for topic, group in self._case.inputs:
                await (await there.consumer(topic, group)).close()
        consumers = [await self._bus.consumer(topic, group) for topic, group in self._seen]
        crowd = [asyncio.create_task(self._work(consumer)) for consumer in consumers]
        try:
            for _ in range(3 * kills):
                if self._killed.total() == kills:
                    break
                await self._life()
                _check(crowd)
            assert self._killed.total() == kills, "it was done before it could be killed"
            while self._fed < self._case.portions:
                await self._feed()
            await self._finish(crowd)
            # What it made at its very end is to be counted too.
            async with asyncio.timeout(_PATIENCE):
                while not await self._quiet(*self._seen):  # noqa: ASYNC110 - other processes tell nobody
                    await asyncio.sleep(0.05)
        finally:
            for one in crowd:
                one.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)

    async def _life(self) -> None:
        dice, case = self._dice, self._case
        roll = dice.random()
        # Those at the beginning are met more often: a life may be too short for the others.
        step = dice.randint(1, dice.randint(1, case.steps)) if roll < _STEPS else 0
        if case.feeds_before:
            await self._feed()
        victim = _Victim(case, self._url)
        await victim.start(step)
        feeding = asyncio.create_task(asyncio.sleep(0) if case.feeds_before else self._feed())
        if step:
            how = "step" if await self._dies(victim) else "moment"
        elif roll < _STEPS + _EARLY:
            how = "start"
            await asyncio.sleep(dice.uniform(0.0, _START))
        else:
            how = "moment"
            if not case.ends:
                await victim.started()
            await asyncio.sleep(dice.uniform(0.0, _LIFE))
        await victim.kill()
        await feeding
        if victim.killed:
            self._killed[how] += 1
        else:
            assert case.ends, f"it ended by itself with {victim.code}:\n{victim.log()}"
            assert victim.code == 0, victim.log()

    async def _dies(self, victim: _Victim) -> bool:
        """Whether it comes to its step, before there is nothing more to do."""
        await victim.started()
        self._last = time.monotonic()
        deadline = self._last + _PATIENCE
        while not await victim.dead(0.02):
            if time.monotonic() > deadline or await self._quiet(*self._case.inputs, *self._seen):
                return False
        return True

    async def _finish(self, crowd: list[asyncio.Task[None]]) -> None:
        self._case.finishing()
        self._last = time.monotonic()
        while True:
            victim = _Victim(self._case, self._url)
            await victim.start(0)
            try:
                while not (done := await self._done(crowd)) and not (self._case.ends and await victim.dead(0.0)):
                    await asyncio.sleep(0.05)
                    if time.monotonic() > self._last + _PATIENCE:
                        # What waits is not lost, and tells something else than what is.
                        left = {
                            topic: (await self._bus.depth(topic, group)).total for topic, group in self._case.inputs
                        }
                        assert not any(left.values()), f"nothing new for {_PATIENCE:g} s, with messages left: {left}"
                        done = True
                        break
                if self._case.ends:
                    await victim.ended()
                else:
                    await victim.stop()
            finally:
                await victim.kill()
            if done:
                return

    async def _done(self, crowd: list[asyncio.Task[None]]) -> bool:
        """Whether all has come, and nothing more will."""
        _check(crowd)
        return self._case.enough() and await self._quiet(*self._case.inputs, *self._seen)

    async def _quiet(self, *groups: tuple[str, str]) -> bool:
        """Whether nothing has come for a while, and nothing waits for any of these topics and groups."""
        if time.monotonic() < self._last + _QUIET:
            return False
        return not any([(await self._bus.depth(topic, group)).total for topic, group in groups])

    async def _feed(self) -> None:
        """Give the next portion, in pieces."""
        if self._fed == self._case.portions:
            return
        portion, self._fed = self._fed, self._fed + 1
        deeds = list(self._case.feed(portion))
        while deeds:
            count = self._dice.randint(1, max(1, self._case.size // 2))
            some, deeds = deeds[:count], deeds[count:]
            messages = [deed for deed in some if isinstance(deed, Message)]
            if messages:
                await self._producer.publish_many(messages)
            for deed in some:
                if not isinstance(deed, Message):
                    deed()
            await asyncio.sleep(self._dice.uniform(0.0, 0.1))

    async def _work(self, consumer: Consumer) -> None:
        """Receive what was made, and do it."""
        case = self._case
        while True:
            batch = await consumer.receive(200)
            answers = []
            for delivery in batch:
                key = case.key(consumer.topic, orjson.loads(delivery.body))
                if key is None:
                    continue
                case.found[key] += 1
                if (answer := case.answer(consumer.topic, decode(delivery.body))) is not None:
                    answers.append(answer)
                self._last = time.monotonic()
            await consumer.finish(batch, answers, self._producer)


class _Victim:
    """One process."""

    def __init__(self, case: Case, url: str) -> None:
        self._args = case.args(url)
        self._folder = case.folder
        self._started = asyncio.Event()
        self._raised = False
        self.code: int | None = None

    async def start(self, step: int) -> None:
        """Start it; at that step it kills itself, unless that is 0."""
        command = command_line(*self._args)
        if step:
            command = [sys.executable, "-m", "tests.crash_matrix.victim", str(step), *self._args]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self._folder,
            env=environment({"PYTHONPATH": _ROOT}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())

    @property
    def killed(self) -> bool:
        """Whether SIGKILL was the end of it."""
        return self.code == -signal.SIGKILL

    async def started(self) -> None:
        """Return when it works, or has ended."""
        await self._started.wait()

    async def dead(self, seconds: float) -> bool:
        """Whether it ends within so many seconds of when it works."""
        await self._started.wait()
        await asyncio.wait([self._reading], timeout=seconds)
        return self._reading.done()

    async def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        await self._end(signal.SIGKILL)

    async def ended(self) -> None:
        """Return when it has ended by itself, in order."""
        await self._reading
        self.code = await self._process.wait()
        assert self.code == 0, f"it ended with {self.code}:\n{self.log()}"

    async def stop(self) -> None:
        """SIGTERM, unless it has ended. It must end in order."""
        await await_until(lambda: self._reading.done() or catches(self._process.pid, signal.SIGTERM), 60)
        await self._end(signal.SIGTERM)
        assert self.code == 0, f"it ended with {self.code}:\n{self.log()}"

    def log(self) -> str:
        """The end of what it and those before it have written to stderr."""
        return (self._folder / "log").read_text()[-4000:]

    async def _end(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            # Its own method would look whether it has ended, and so take the exit code from asyncio.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
        await self._reading
        self.code = await self._process.wait()
        assert not self._raised, self.log()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        with (self._folder / "log").open("ab") as log:
            async for line in self._process.stderr:
                log.write(line)
                self._raised |= b"Traceback" in line
                if b'"event":"started"' in line:
                    self._started.set()
        self._started.set()


def _check(crowd: list[asyncio.Task[None]]) -> None:
    for one in crowd:
        if one.done():
            one.result()
