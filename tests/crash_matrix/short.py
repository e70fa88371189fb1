"""The short form of the matrix, for pytest. ``TASKBUS_KILLS`` and ``TASKBUS_KILL_TASKS`` make it longer."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.crash_matrix.case import Case
from tests.crash_matrix.drive import Report, crash

__all__ = ["Outcomes", "run_short"]

#: Cases at the same time.
_JOBS = 5


class Outcomes:
    """What came of each case: a report, or what went wrong."""

    def __init__(self, seed: int, found: Mapping[type[Case], Report | BaseException]) -> None:
        self._seed = seed
        self._found = found

    def verify(self, case: type[Case]) -> None:
        """Fail unless nothing was lost and nothing else was made."""
        found = self._found[case]
        print(f"seed {self._seed}: {found}")
        if isinstance(found, BaseException):
            raise found
        found.verify()


def run_short(request: pytest.FixtureRequest, folder: Path, bus: str) -> Outcomes:
    """Run those cases of the requesting module that were selected."""
    wanted: list[Any] = [
        item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    seed = random.randrange(2**32)
    return Outcomes(seed, asyncio.run(_run(wanted, folder, bus, seed)))


async def _run(
    cases: Iterable[type[Case]], folder: Path, bus: str, seed: int
) -> Mapping[type[Case], Report | BaseException]:
    kills = int(os.environ.get("TASKBUS_KILLS", "10"))
    tasks = int(os.environ.get("TASKBUS_KILL_TASKS", "500"))
    slots = asyncio.Semaphore(_JOBS)

    async def one(case: type[Case]) -> Report:
        async with slots:
            return await crash(case, folder / case.__name__, bus, kills=kills, tasks=tasks, seed=seed)

    wanted = list(cases)
    found = await asyncio.gather(*map(one, wanted), return_exceptions=True)
    return dict(zip(wanted, found, strict=True))
