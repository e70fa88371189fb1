"""Running any tests on buses that fail now and then: ``pytest --inject 0.08 --inject-seed 7``.

What the application under test does with a bus fails; what the test itself does with it does not, and neither does
opening, of which an application tells at once that it failed. The seed of each test is made of the given one and its
name, so that one test alone fails as it did among others. A test marked ``no_faults`` is left out: it counts
operations, or expects each message exactly once.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import pytest

from bus import Adapter, Bus, BusURL, registry
from bus.inject import OPERATIONS, Fault, InjectedBus, Injector

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure", "pytest_report_header"]

ROOT = Path(__file__).parents[1]
_TESTS = str(ROOT / "tests")
_OURS = tuple(str(ROOT / name) for name in ("task", "taskmasters", "apps", "workers"))
_BUSES = ("memory", "sqlite", "file")
_OPERATIONS = OPERATIONS.keys() - {"open", "producer", "consumer"}
#: Seconds that what times out takes.
_WAIT = 0.005


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--inject", type=float, default=0.0, metavar="RATE", help="inject faults into the buses of tests")
    group.addoption("--inject-seed", type=int, default=7, metavar="N", help="the same seed, the same faults")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_faults(reason): not run with --inject")


def pytest_report_header(config: pytest.Config) -> str | None:
    rate = config.getoption("--inject")
    return f"injecting faults: rate {rate:g}, seed {config.getoption('--inject-seed')}" if rate else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--inject"):
        return
    for item in items:
        mark = item.get_closest_marker("no_faults")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"no faults: {mark.args[0]}"))


class _Aware(Injector):
    """Lets fail only what the application does: the nearest caller of ours decides."""

    def draw(self, operation: str, size: int = 1) -> Fault | None:
        frame = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(_TESTS):
                return None
            if name.startswith(_OURS):
                return super().draw(operation, size)
            frame = cast(Any, frame.f_back)
        return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    rate = item.config.getoption("--inject")
    if not rate:
        return (yield)
    seed = crc32(f"{item.config.getoption('--inject-seed')}:{item.nodeid}".encode())
    load = registry.load
    made: list[Injector] = []

    def injected(adapter: Adapter) -> Any:
        kind = load(adapter)
        if adapter.scheme not in _BUSES:
            return kind

        def make(url: BusURL, **more: Any) -> Bus:
            injector = _Aware(rate=rate, seed=seed + len(made), wait=_WAIT, operations=_OPERATIONS)
            made.append(injector)
            return InjectedBus(cast(Any, kind)(url, **more), injector)

        return make

    registry.load = injected
    try:
        return (yield)
    finally:
        registry.load = load
        item.add_report_section("call", "inject", "\n".join(str(injector) for injector in made))
