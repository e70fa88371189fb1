"""What the packages export: a name that comes or goes is a decision, not an accident."""

from __future__ import annotations

from types import ModuleType

import pytest

import bus
import task
import task.testing

BUS = """
    Adapter BadNameError Bus BusError BusURL BusURLError Capabilities ClosedError Consumer CorruptError Delivery Depth
    Durability FullError Health LeaseLostError Message MissingExtraError NoSuchTopicError Order OutputClosedError Peeked
    Producer Secret TaskbusError TooLargeError UnauthorisedError UnconfirmedError UnreachableError UnsupportedError
    adapters check_group check_topic connect dead_topic load option parse_options parse_url
"""
TASK = """
    CancelReason Context DecodeError Dialect Interrupted Launch Outcome ParamsError Reject Result RetryLater
    SettingsError Task TaskError Worker WorkerError alert complete decode derive_id encode error new_id reject
    retry_later run warn worker
"""
TESTING = "do_task outcome_of"
PACKAGES = [pytest.param(bus, BUS, id="bus"), pytest.param(task, TASK, id="task")]


@pytest.mark.parametrize(("package", "names"), [*PACKAGES, pytest.param(task.testing, TESTING, id="task.testing")])
def test_all_is_pinned(package: ModuleType, names: str) -> None:
    """``__all__`` is these names, sorted, and each of them exists."""
    assert package.__all__ == names.split()
    assert package.__all__ == sorted(package.__all__)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


@pytest.mark.parametrize(("package", "names"), PACKAGES)
def test_nothing_else_is_public(package: ModuleType, names: str) -> None:
    """What is imported into the package for use, and no submodule, is exported."""
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name not in ("annotations", "TYPE_CHECKING", "Any")
    }

    assert public <= set(names.split())
