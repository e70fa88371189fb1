"""Everything that was found out about a setup, for the checks to judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bus import BusURL, Capabilities, Depth
from bus.facts import Fact
from task.options import WorkerOptions

__all__ = ["Durations", "Limits", "Queue", "Setup", "Status"]

_LIMITS = ("files", "grace", "memory")
#: What to give, so that it is known.
_GIVE = {
    "capabilities": "no bus is known: give its URL as --bus",
    "dead": "the topic of the tasks is not known: give --type NAME",
    "durations": "how long tasks take is not known: give --status http://HOST:PORT of a running worker",
    "grace": "how long the orchestrator waits before it kills is not known: give --grace 30s, or --unit FILE",
    "memory": "no limit of memory is known: give --unit FILE, a file that sets one",
    "options": "the settings of the worker are not known: give its configuration file",
    "queues": "the topic of the tasks is not known: give --type NAME",
    "status": "only a running worker tells this: give --status http://HOST:PORT",
    "topic": "the topic of the tasks is not known: give --type NAME",
    "unread_done": "the topic of done tasks is not known",
    "url": "no bus is known: give its URL as --bus",
}
#: What a fact is about, by the first part of its name.
_NOT_THERE = {
    "channel": "the group on nsqd",
    "consumer": "the group on the server",
    "stream": "the stream of these topics",
    "subscription": "the subscription",
    "topic": "the topic",
}


@dataclass(frozen=True, slots=True)
class Status:
    """What the status page of a running worker tells."""

    where: str
    #: The JSON at ``/``.
    page: Mapping[str, object]
    #: Samples of ``/metrics``, those of one name added up.
    metrics: Mapping[str, float]
    #: Why ``/readyz`` does not say 200; empty if it does.
    not_ready: str = ""

    def text(self, key: str) -> str | None:
        """A text of the page."""
        value = self.page.get(key)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Durations:
    """How long tasks take, in seconds. ``source`` says how that is known."""

    longest: float
    p99: float
    mean: float
    count: int
    source: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A group of a topic at two moments, ``apart`` seconds from each other. ``oldest`` is the age of its first task."""

    topic: str
    group: str
    first: Depth
    second: Depth
    apart: float
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine or the orchestrator allows. None = it was not told.

    ``grace`` (seconds between SIGTERM and SIGKILL), ``memory`` (bytes) and ``files`` (open ones) come from ``source``.
    """

    grace: float | None = None
    memory: float | None = None
    files: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Setup:
    """What is known. What could not be had is None, and ``troubles`` has the reason under its name."""

    url: BusURL | None = None
    options: WorkerOptions | None = None
    kind: str | None = None
    topic: str | None = None
    group: str | None = None
    done_topic: str | None = None
    dead_topic: str | None = None
    status: Status | None = None
    capabilities: Capabilities | None = None
    durations: Durations | None = None
    limits: Limits = field(default_factory=Limits)
    facts: tuple[Fact, ...] | None = None
    #: Groups of the topic of tasks and of the one of done tasks.
    queues: tuple[Queue, ...] | None = None
    #: Dead letters stored, at least; None if that could not be looked at.
    dead: int | None = None
    #: Messages stored on the done topic although no group reads it.
    unread_done: int | None = None
    #: ``bus``, ``facts``, ``queues``, ``dead``, ``durations``, ``unread_done``: why there is none.
    troubles: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """The kind of bus; empty if none is known."""
        return self.url.scheme if self.url is not None else ""

    def all(self, name: str) -> Iterator[Fact]:
        """Every fact of this name, those that could not be had included."""
        return (fact for fact in self.facts or () if fact.name == name)

    def numbers(self, name: str) -> Iterator[tuple[float, str]]:
        """The values of every fact of this name that is a number, each with its place."""
        for fact in self.all(name):
            if isinstance(fact.value, (int, float)):
                yield float(fact.value), fact.place

    def number(self, name: str) -> float | None:
        """The first of them."""
        return next((value for value, _ in self.numbers(name)), None)

    def lacks(self, need: str) -> str:
        """Why what a check needs is not known, and what to give; empty if it is known."""
        kind, _, name = need.partition(":")
        if kind == "fact":
            return self._lacks_fact(name)
        value = getattr(self.limits if need in _LIMITS else self, need)
        if value is not None:
            return ""
        return self.troubles.get(need) or _GIVE[need]

    def _lacks_fact(self, name: str) -> str:
        found = list(self.all(name))
        for fact in found:
            if fact.trouble:
                return f"{fact.place}: {fact.trouble}"
        if found:
            return ""
        if self.facts is None:
            return self.troubles.get("facts") or _GIVE["url"]
        what = _NOT_THERE.get(name.partition(".")[0])
        return f"{what} is not there yet" if what else f"the {self.scheme} bus does not tell it"
