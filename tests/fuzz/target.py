"""A reader to be fuzzed, and trying it with many inputs."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import FrameType

from tests.fuzz.mutate import mutate

__all__ = ["Finding", "HangError", "Target", "check", "fuzz"]

#: Seconds one input may take.
LIMIT = 10.0


class HangError(Exception):
    """One input took too long."""


@dataclass(frozen=True)
class Target:
    """``read`` takes any bytes and raises nothing but ``refuses``; it asserts what holds of what it could read.

    ``cost`` is how many inputs of the usual kind it has to do without for one of its own: it is slow.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    cost: int = 1


@dataclass(frozen=True)
class Finding:
    """An input that broke a target."""

    target: str
    number: int
    data: bytes
    error: BaseException

    @property
    def kind(self) -> str:
        """What tells it from other findings: the error, and the last place of ours."""
        frames = traceback.extract_tb(self.error.__traceback__)
        ours = [
            frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename
        ]
        place = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else "?"
        return f"{self.target}: {type(self.error).__name__} at {place}"

    def __str__(self) -> str:
        told = "".join(traceback.format_exception(self.error)[-6:])
        return f"{self.kind}\ninput {self.number}: {self.data!r}\n{told}"


def check(target: Target, data: bytes) -> bool:
    """Try one input: whether it was accepted. Raises what it must not raise."""
    try:
        target.read(data)
    except target.refuses:
        return False
    return True


def fuzz(target: Target, count: int, seed: int, most: int = 20) -> Iterator[Finding]:
    """Try ``count`` inputs; the first of each kind of finding, ``most`` at most."""
    known: set[str] = set()
    for number in range(count):
        data = mutate(Random(f"{seed}:{target.name}:{number}"), target.seeds)
        try:
            with _limited(LIMIT):
                check(target, data)
        except Exception as error:  # that is what is looked for, whatever it is
            finding = Finding(target.name, number, data, error)
            if finding.kind not in known:
                known.add(finding.kind)
                yield finding
            if len(known) >= most:
                return


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def expired(signum: int, frame: FrameType | None) -> None:
        raise HangError(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
