"""One trial: a cluster, a plan, the wait until all is settled, and what was promised and not kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bus import Durability
from tests.nemesis.account import Account, settle
from tests.nemesis.brokers import serve
from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import FAULTS, Fault
from tests.nemesis.footprint import Footprint, drift
from tests.nemesis.ledger import Event
from tests.nemesis.plan import Period, plan

__all__ = ["Refused", "Trial", "run_trial"]

#: Seconds without any progress after which nothing more is expected.
_PATIENCE = 60.0
#: The same where losses are expected: longer than any lease, also that of the Pub/Sub emulator.
_SHORT_PATIENCE = 20.0
#: Seconds until all workers must work, and then until a task is reported: all are fresh, and so is the broker.
_STARTING = 90.0
#: The share of the plan in which all tasks are sent, if nothing is in the way.
_SENDING = 0.9
_TICK = 0.1


class Refused(Exception):
    """A fault cannot be done on this bus; the text says why."""


@dataclass(slots=True)
class Trial:
    """What came of it."""

    bus: str
    version: str
    durability: Durability
    faults: tuple[str, ...]
    seed: int
    #: How often each fault struck.
    strikes: dict[str, int]
    account: Account
    #: Seconds from the end of the last fault until everything accepted was reported; None = it never was.
    drained: float | None
    #: Whether the tier of the bus covers every fault that struck.
    covered: bool
    #: How many tasks might be done again; None = no bound is asserted.
    allowed: int | None
    #: What was promised and not kept, in sentences; empty = all is well.
    broken: list[str] = field(default_factory=list)


def run_trial(
    name: str,
    faults: Sequence[str],
    folder: Path,
    *,
    tasks: int,
    seed: int,
    seconds: float,
    mean: float = 5.0,
    mixed: int | None = None,
    leaks: bool = False,
    options: Sequence[str] = (),
    patience: float = _PATIENCE,
    say: Callable[[str], None] = lambda text: None,
) -> Trial:
    """Run one, on the bus ``name``, with all of ``faults``.

    Or with at most ``mixed`` of them, by chance, of those that mix, can be done there and are covered by its tier. With
    ``leaks`` processes that were not harmed must not have grown. ``options`` are for the workers; after ``patience``
    seconds without any progress nothing more is expected. Raises Refused, or RuntimeError where the processes do
    not even start.
    """
    with serve(name, folder) as served, Cluster(name, folder, served, spare_first=leaks) as cluster:
        cluster.fleet.options += options
        chosen = [FAULTS[fault] for fault in faults]
        if mixed is not None:
            able = [fault for fault in chosen if fault.mixes and fault.covered(cluster) and not fault.refuses(cluster)]
            chosen = Random(f"{seed} {name}").sample(able, min(mixed, len(able)))
        for fault in chosen:
            reason = fault.refuses(cluster)
            if reason:
                raise Refused(reason)
            fault.prepare(cluster)
        cluster.start()
        _await(lambda: cluster.fleet.working, "not all workers work", cluster)
        cluster.send(tasks=tasks, rate=tasks / (seconds * _SENDING), seed=seed)
        _await(lambda: cluster.ledger.count(Event.DONE), "no task is reported", cluster)
        taken: list[list[Footprint]] = []
        for period in plan(f"{seed} {name}", chosen, seconds, mean=mean):
            say(f"{name}: {period}")
            _run_period(cluster, period)
            if leaks:
                taken.append(cluster.footprints())
                say(f"{name}: {taken[-1]}")
        drained = _drain(cluster, patience if _covered(cluster) else min(patience, _SHORT_PATIENCE))
        trial = Trial(
            bus=name,
            version=cluster.version,
            durability=cluster.durability,
            faults=tuple(fault.name for fault in chosen),
            seed=seed,
            strikes=dict(cluster.strikes),
            account=settle(cluster.ledger),
            drained=drained,
            covered=_covered(cluster),
            allowed=_allowed(cluster),
        )
        trial.broken += _broken(trial, cluster)
        if leaks:
            trial.broken += drift([*taken, cluster.footprints()])
    return trial


def _await(condition: Callable[[], object], trouble: str, cluster: Cluster) -> None:
    deadline = time.monotonic() + _STARTING
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{trouble} within {_STARTING:g} s: see {cluster.folder}")
        time.sleep(_TICK)


def _run_period(cluster: Cluster, period: Period) -> None:
    troubles: list[Exception] = []

    def strike(fault: Fault) -> None:
        try:
            fault.strike(cluster, period)
        except Exception as trouble:
            troubles.append(trouble)

    threads = [threading.Thread(target=strike, args=(FAULTS[name],), name=name) for name in period.faults]
    period.begin()
    for thread in threads:
        thread.start()
    period.rest(period.seconds)
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]


def _covered(cluster: Cluster) -> bool:
    return all(FAULTS[name].covered(cluster) for name in cluster.strikes)


def _allowed(cluster: Cluster) -> int | None:
    total = 0
    for name, strikes in cluster.strikes.items():
        again = FAULTS[name].again
        if again is None:
            return None
        total += again * strikes
    return total


def _drain(cluster: Cluster, patience: float) -> float | None:
    """Wait until the sender has sent all and all of it is reported, as long as there is progress."""
    began = moved = time.monotonic()
    last = -1
    while True:
        ledger = cluster.ledger
        sending = cluster.sender is not None and cluster.sender.poll() is None
        pending = ledger.pending()
        now = time.monotonic()
        if not sending and not pending:
            return now - began
        progress = sum(ledger.count(event).total() for event in (Event.ACCEPTED, Event.DONE, Event.DEAD))
        if progress != last:
            last, moved = progress, now
        if now - moved > patience:
            return None
        time.sleep(_TICK)


def _broken(trial: Trial, cluster: Cluster) -> list[str]:
    account, broken = trial.account, []
    if len(trial.faults) == 1 and not trial.strikes:
        broken.append("the fault never struck")
    if trial.covered and account.lost:
        broken.append(f"{account.lost} of {account.accepted} tasks were lost")
    if trial.covered and trial.drained is None:
        broken.append("it did not drain by itself")
    if cluster.sender is not None and cluster.sender.poll() != 0:
        broken.append("the sender did not come to its end")
    if account.invented:
        broken.append(f"{account.invented} tasks came that nobody sent")
    if account.poison_done:
        broken.append(f"{account.poison_done} of what was no task were done")
    if trial.allowed is not None and account.duplicates > trial.allowed + account.published_again:
        broken.append(
            f"{account.duplicates} duplicates, more than {trial.allowed} and {account.published_again} published again"
        )
    if cluster.fleet.unexpected:
        ended = ", ".join(f"{code} ({log})" for code, log in cluster.fleet.unexpected)
        broken.append(f"workers ended by themselves with exit codes {ended}")
    if cluster.observer is not None and cluster.observer.poll() is not None:
        broken.append(f"the observer ended by itself with {cluster.observer.returncode}")
    broken += [f"a traceback in {log}" for log in cluster.folder.glob("*.log") if "Traceback" in _text(log)]
    return broken


def _text(log: Path) -> str:
    # A broker's own tracebacks are its own.
    return log.read_text(errors="replace") if log.name.startswith(("worker", "sender", "observer")) else ""
