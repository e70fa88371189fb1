"""What holds for every test."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.states import mariadb, postgres, state_url

pytest_plugins = ["tests.inject"]

__all__ = ["mariadb", "postgres", "state_url"]

# A deadline per example measures how busy the machine is, not what is tested.
settings.register_profile("taskbus", deadline=None)
settings.load_profile("taskbus")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged may hold what is no text, on purpose; a report that does cannot be sent between processes."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
