"""When Python looks for reference cycles."""

from __future__ import annotations

import gc

import pytest

from task.collector import collector_paused


def test_it_is_paused_only_inside() -> None:
    """Inside nothing is looked for, whatever happens there; whoever had turned it off keeps it off."""

    def fails() -> None:
        with collector_paused():
            assert not gc.isenabled()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_very_many_objects_are_not_looked_at_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made inside is looked at as ever when it ends, unless that would take long."""
    frozen: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.get_count()[0]))
    with collector_paused():
        kept: list[list[int]] = [[n] for n in range(1000)]
    assert frozen == []
    with collector_paused():
        kept = [[n] for n in range(150_000)]
    assert len(kept) == 150_000
    assert len(frozen) == 1
