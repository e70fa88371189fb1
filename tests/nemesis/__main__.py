"""``python -m tests.nemesis``: run trials and print their table."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tests.nemesis.catalogue  # noqa: F401 - registers the faults
from tests.nemesis.brokers import BUSES
from tests.nemesis.fault import FAULTS
from tests.nemesis.table import HEAD, keep, kept, row, table, write
from tests.nemesis.trial import Refused, Trial, run_trial

__all__ = ["main"]

_HOUR = 3600.0
#: Seconds of a period of a soak, on average.
_SOAK_MEAN = 30.0
#: Tasks a second in a soak.
_SOAK_RATE = 20
_QUIET = "none"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 if anything that was promised was not kept, or a bus could not be had."""
    options = _parse(argv)
    os.environ.setdefault("TASKBUS_SERVERS", "1")
    print(f"seed {options.seed} (repeat with SEED={options.seed})", flush=True)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="nemesis-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"ledgers and logs are in {folder}", flush=True)
    each = (
        [[name for name in options.faults if name != _QUIET]] if options.hours else [[name] for name in options.faults]
    )
    jobs = [(name, [fault for fault in faults if fault != _QUIET]) for faults in each for name in options.buses]
    failed = False

    def run(job: tuple[str, list[str]]) -> Trial | str | None:
        name, faults = job
        what = "mixed" if options.hours else "".join(faults) or _QUIET
        label = f"{name}-{what.replace(' ', '-')}"
        own = Path(tempfile.mkdtemp(prefix=f"{label}-", dir=folder))
        seconds = options.hours * _HOUR or options.seconds
        try:
            trial = run_trial(
                name,
                faults,
                own,
                tasks=round(options.hours * _HOUR * _SOAK_RATE) or options.tasks,
                seed=options.seed,
                seconds=seconds,
                mean=_SOAK_MEAN if options.hours else seconds / 4,
                mixed=len(faults) if options.hours else None,
                leaks=bool(options.hours),
                say=_say if options.verbose else _be_quiet,
            )
            keep(trial, folder / "results" / f"{label}.json")
            return trial
        except Refused:
            return None
        # Whatever went wrong is told, and the other trials go on.
        except (pytest.skip.Exception, pytest.fail.Exception, Exception) as trouble:
            return f"{name}: {what}: not run: {type(trouble).__name__}: {trouble}"

    print(HEAD, flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(run, jobs):
            if isinstance(result, Trial):
                print(row(result), flush=True)
                for sentence in result.broken:
                    print(f"    BROKEN {sentence}", flush=True)
                failed = failed or bool(result.broken)
            elif result is not None:
                print(result, flush=True)
                failed = True
    # Also those that an earlier run left in the same folder.
    trials = sorted(map(kept, (folder / "results").glob("*.json")), key=_place)
    print()
    print(table(trials))
    if options.write:
        write(trials)
    return int(failed)


def _place(trial: Trial) -> tuple[list[int], int]:
    """Where it stands in the table: by fault, then by bus."""
    return [list(FAULTS).index(name) for name in trial.faults], list(BUSES).index(trial.bus)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _be_quiet(text: str) -> None:
    """Say nothing."""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    known = [_QUIET, *FAULTS]
    parser.add_argument("--buses", type=_names(list(BUSES)), default=list(BUSES), help="such as sqlite,nats")
    parser.add_argument("--faults", type=_names(known), default=known, help=f"some of: {', '.join(known)}")
    parser.add_argument("--tasks", type=int, default=300, help="tasks of each trial")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long faults go on in each trial")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or random.randrange(2**32)))
    parser.add_argument("--hours", type=float, default=0.0, help="soak: mixed faults for so long on each bus")
    parser.add_argument("--jobs", type=int, default=3, help="trials side by side")
    parser.add_argument(
        "--folder", help="where ledgers, logs and results go, beside earlier results; by default a new one"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/guarantees.md")
    parser.add_argument("--verbose", action="store_true", help="say which period begins")
    return parser.parse_args(argv)


def _names(known: list[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",")]
        wrong = [name for name in found if name not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)} is none of: {', '.join(known)}")
        return found

    return names


if __name__ == "__main__":
    sys.exit(main())
