"""What the cron taskmaster remembers, in a file of its own, in a database and in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bus.kv import KeyValue
from task.errors import StateError
from taskmasters.bucket import Bucket, key_part
from taskmasters.cron.bucket_state import BucketState
from taskmasters.cron.shared_state import FIRED, SharedState
from taskmasters.cron.state import SqliteState, State
from taskmasters.store import open_store
from tests.servers.nats import nats_server

#: Gives another replica's view of the state.
States = Callable[[], State]


@pytest.fixture(params=["file", "sql", "bucket", "nats"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[States]:
    """An empty state of each kind. A bucket can be a table, too."""
    place = str(tmp_path / "state.db")
    with ExitStack() as stack:
        if request.param == "file":
            yield lambda: stack.enter_context(_closing(SqliteState(place)))
        elif request.param == "sql":
            store = open_store(place, FIRED)
            stack.callback(store.close)
            yield lambda: SharedState(store, "rules")
        else:
            url = f"sqlite:{place}"
            if request.param == "nats":
                url = f"{stack.enter_context(nats_server(tmp_path)).url}/cron"
            bucket = Bucket(url)
            stack.callback(bucket.close)
            yield lambda: BucketState(bucket, "cron.rules.fired")


class _closing(ExitStack):  # noqa: N801 - it is used as a function
    def __init__(self, state: SqliteState) -> None:
        super().__init__()
        self._state = state
        self.callback(state.close)

    def __enter__(self) -> SqliteState:  # type: ignore[override]
        return self._state


def test_it_remembers_the_latest_instant_of_a_schedule(states: States) -> None:
    """An instant never goes back while the schedule is the same, whoever writes; another schedule begins anew."""
    one, two = states(), states()
    assert one.read({"a": "x"}) == {}
    one.write([("a", "x", 10), ("b", "x", 20)])
    two.write([("a", "x", 5), ("c", "y", 30)])
    one.write([("b", "x", 25)])
    two.write([("b", "x", 21)])
    schedules = {"a": "x", "b": "x", "c": "y", "d": "x"}
    assert one.read(schedules) == two.read(schedules) == {"a": 10, "b": 25, "c": 30}
    assert one.read({"a": "other"}) == {}
    two.write([("a", "other", 3)])
    assert one.read({"a": "other", "b": "x"}) == {"a": 3, "b": 25}
    one.write([])


def test_thousands_of_rules(states: States) -> None:
    """Each of 5,000 rules, however it is called, is remembered by itself."""
    fired = [(f"Regel {number} / ü", "* * * * *", number) for number in range(5000)]
    states().write(fired)
    states().write((rule, schedule, instant + 1) for rule, schedule, instant in fired[:10])
    found = states().read({rule: schedule for rule, schedule, _ in fired})
    assert found == {rule: instant + (number < 10) for number, (rule, _, instant) in enumerate(fired)}


def test_what_is_no_state(tmp_path: Path) -> None:
    """A key of a bucket that holds something else is told, and not written over."""
    bucket = Bucket(f"sqlite:{tmp_path}/kv.db")
    state = BucketState(bucket, "p")

    async def write(store: KeyValue) -> None:
        for part in range(64):
            await store.create(f"p.{part}", b'{"a":7}')

    bucket.call(write)
    for call in (lambda: state.read({"a": "x"}), lambda: state.write([("a", "x", 1)])):
        with pytest.raises(StateError, match="is no state of cron; delete it"):
            call()
    bucket.close()
    bucket.close()
    with pytest.raises(StateError, match="closed"):
        state.read({"a": "x"})


def test_names_as_parts_of_keys() -> None:
    """Every name gives a part that is allowed, and two names give two."""
    names = ["rules", "Rules", "my rules", "my=20rules", "a.b", "a/b", "ü", "", "x" * 500, "x" * 501, "*", "\ud800"]
    parts = [key_part(name) for name in names]
    assert len(set(parts)) == len(names)
    assert all(set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-=") for part in parts)
    assert parts[0] == "rules"
    assert max(map(len, parts)) <= 100
