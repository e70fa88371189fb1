"""The duplicate guard: worker applications on one bus that share a store of each kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bus import BusURLError, Capabilities, Durability
from bus.errors import UnconfirmedError, UnreachableError, UnsupportedError
from bus.kv import KeyValue, open_kv
from task import Context, Outcome, Task, Worker, complete, error, warn
from task.context import CancelReason
from task.errors import SettingsError
from task.guard import Claim, Guard
from task.guarded import GuardedLauncher
from task.options import WorkerOptions
from task.report import Report
from task.stats import Stats
from task.worker_app import WorkerApp
from tests.helpers import await_until
from tests.servers.nats import nats_server
from tests.unit.engine import eventually, rig, worker


#: Every store passes the suite for stores; what is built on it is tried on a table and on a bucket.
@pytest.fixture(params=["sqlite", "nats"])
def guard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:{tmp_path}/guard.db"
        else:
            yield f"{stack.enter_context(nats_server(tmp_path)).url}/guard"


@pytest.fixture
def every_guard(state_url: str) -> str:
    """The URL of an empty database of each kind."""
    return state_url if "://" in state_url else f"sqlite:{state_url}"


@pytest.fixture
def local(tmp_path: Path) -> str:
    """A store for what does not depend on its kind."""
    return f"sqlite:{tmp_path}/guard.db"


class Hall:
    """A worker whose tasks wait to be let out, and who is inside."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.began: list[str] = []
        self.most = 0
        self.go = threading.Event()
        self.outcome: Callable[[Task], Outcome] = lambda task: complete(f"by {task.id}", page="7")
        self._lock = threading.Lock()

    def do(self, task: Task, ctx: Context) -> Outcome:
        name = task.id or ""
        with self._lock:
            self.began.append(name)
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
        while not self.go.is_set() and not ctx.wait(0.005):
            pass
        with self._lock:
            self.inside.remove(name)
        return self.outcome(task)


def stat(apps: list[WorkerApp], name: str) -> int:
    return sum(int(getattr(app.stats, name)) for app in apps)


def test_the_same_is_not_done_side_by_side(guard: str) -> None:
    """Of four tasks of one value one is done at a time; other values, jobs and groups do not wait."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r:
            launch = worker(hall.do)
            async with r.running(launch, guard=guard, max_in_progress=3) as one, r.running(launch, guard=guard) as two:
                await r.send(*(Task("t", "same", id=f"s{n}") for n in range(4)))
                await await_until(lambda: len(hall.inside) == 1 and stat([one, two], "guard_waits") == 3, 30)
                hall.go.set()
                done = await r.take(4)
                await r.idle()
            assert hall.most == 1
            assert sorted(hall.began) == sorted(task["id"] for task in done) == ["s0", "s1", "s2", "s3"]
            assert all(task["msg"] == f"by {task['id']}" for task in done)

            hall = Hall()
            launch = worker(hall.do)
            async with (
                r.running(launch, guard=guard, max_in_progress=3),
                r.running(launch, guard=guard, max_in_progress=3, group="another"),
            ):
                await r.send(Task("t", "a"), Task("t", "b"), Task("t", "a", job="j"))
                await await_until(lambda: len(hall.inside) == 6, 30)
                hall.go.set()
                await r.take(6)

    asyncio.run(main())


def test_what_was_done_is_answered_within_the_window(guard: str) -> None:
    """The second is answered as the first was, with its own id, and not done; after the window it is done again."""

    async def main() -> None:
        hall = Hall()
        hall.go.set()
        hall.outcome = lambda task: warn(f"by {task.id}", page="7")
        async with rig() as r:
            launch = worker(hall.do)
            options: dict[str, Any] = {"guard": guard, "guard_window": 2.0}
            async with r.running(launch, **options) as one, r.running(launch, **options) as two:
                await r.send(Task("t", "v", id="first", meta={"mine": "1"}))
                (first,) = await r.take(1)
                await r.send(Task("t", "v", id="second", meta={"mine": "2"}))
                (second,) = await r.take(1)
                assert hall.began == ["first"]
                assert (first["result"], first["msg"]) == (second["result"], second["msg"]) == ("warn", "by first")
                assert first["meta"] == {"mine": "1", "page": "7"}
                assert second["meta"] == {"mine": "2", "page": "7", "repeat_of": "first"}
                assert stat([one, two], "guard_repeats") == 1
                assert stat([one, two], "runs") == 1

                async def again() -> bool:
                    await r.send(Task("t", "v", id="late"))
                    (late,) = await r.take(1)
                    return "repeat_of" not in late["meta"]

                await eventually(again, 30)
                await r.idle()
            assert hall.began == ["first", "late"]

    asyncio.run(main())


def test_every_database(every_guard: str) -> None:
    """Applications that make the table at the same time share it, and do each value once."""

    async def main() -> None:
        hall = Hall()
        hall.go.set()
        async with rig() as r:
            launch = worker(hall.do)
            options: dict[str, Any] = {"guard": every_guard, "guard_window": 60.0}
            async with r.running(launch, **options), r.running(launch, **options), r.running(launch, **options):
                await r.send(*(Task("t", f"v{n % 3}", id=f"{n}") for n in range(12)))
                done = await r.take(12)
            assert {task["id"] for task in done} == {str(n) for n in range(12)}
            assert len(hall.began) == 3

    asyncio.run(main())


def test_failures_are_not_remembered(guard: str) -> None:
    """An error is done again at once, by whoever asks; so is its retry."""

    async def main() -> None:
        attempts: list[int] = []

        def do(task: Task, ctx: Context) -> Outcome:
            attempts.append(ctx.attempt)
            return error("no") if len(attempts) < 3 else complete("yes")

        async with rig() as r:
            options: dict[str, Any] = {"guard": guard, "guard_window": 60.0, "retries": 1, "retry_delay": 0.01}
            async with r.running(worker(do), **options):
                await r.send(Task("t", "v", id="1"))
                (failed,) = await r.take(1)
                await r.send(Task("t", "v", id="2"))
                (done,) = await r.take(1)
            assert (failed["result"], done["result"], attempts) == ("error", "complete", [1, 2, 1])

    asyncio.run(main())


def test_requeue_hands_back(guard: str) -> None:
    """What would wait goes back to the bus, and the instance does something else meanwhile."""

    async def main() -> None:
        hall = Hall()

        def do(task: Task, ctx: Context) -> Outcome:
            return complete() if task.value == "other" else hall.do(task, ctx)

        async with rig() as r:
            options: dict[str, Any] = {"guard": guard, "guard_running": "requeue", "guard_lease": 5.0}
            async with r.running(worker(do), **options) as one, r.running(worker(do), **options) as two:
                await r.send(Task("t", "same", id="a"), Task("t", "same", id="b"))
                await await_until(lambda: hall.inside and stat([one, two], "guard_requeues") >= 1, 30)
                await r.send(Task("t", "other", id="c"))
                (other,) = await r.take(1)
                assert other["id"] == "c"
                hall.go.set()
                assert {task["id"] for task in await r.take(2)} == {"a", "b"}
                await r.idle()
                assert stat([one, two], "interrupted") == 0
            assert hall.most == 1

    asyncio.run(main())


def test_skip_answers_without_waiting(guard: str) -> None:
    """What would wait is done without being done, and says for which it was left."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r:
            options: dict[str, Any] = {"guard": guard, "guard_running": "skip"}
            async with r.running(worker(hall.do), **options), r.running(worker(hall.do), **options):
                await r.send(Task("t", "same", id="a"), Task("t", "same", id="b"))
                (skipped,) = await r.take(1)
                (running,) = hall.inside
                assert skipped["id"] != running
                assert (skipped["result"], skipped["meta"]) == ("complete", {"repeat_of": running})
                assert "being done elsewhere" in skipped["msg"]
                hall.go.set()
                (done,) = await r.take(1)
                assert done["id"] == running
            assert hall.began == [running]

    asyncio.run(main())


def test_a_claim_is_kept_while_the_task_runs(guard: str) -> None:
    """A task that takes two leases, in code that never lets go of its thread, is not done by another meanwhile."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r:
            options: dict[str, Any] = {"guard": guard, "guard_lease": 1.0}
            async with r.running(worker(hall.do), **options) as one, r.running(worker(hall.do), **options) as two:
                await r.send(Task("t", "same", id="a"), Task("t", "same", id="b"))
                await await_until(lambda: hall.inside and stat([one, two], "guard_waits") == 1, 30)
                loop = asyncio.get_running_loop()
                end = loop.time() + 2.2
                await await_until(lambda: loop.time() > end, 30)
                assert len(hall.began) == 1
                hall.go.set()
                await r.take(2)
                assert stat([one, two], "guard_lost") == 0
            assert hall.most == 1

    asyncio.run(main())


def test_a_dead_instance_is_waited_for_no_longer_than_its_lease(guard: str) -> None:
    """What nobody renews is free after the lease, and not before."""

    async def main() -> None:
        hall = Hall()
        hall.go.set()
        async with rig() as r, open_kv(guard) as store:
            dead = Guard(store, "t", WorkerOptions(guard_lease=1.0)).claim(Task("t", "v", id="dead"))
            assert await dead.acquire() is None
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with r.running(worker(hall.do), guard=guard, guard_lease=1.0):
                await r.send(Task("t", "v", id="heir"))
                (done,) = await r.take(1)
            assert done["id"] == "heir"
            assert loop.time() - began > 0.8

    asyncio.run(main())


async def usurp(guard: str, value: str) -> Claim:
    """Take a task's key away from whoever holds it, as if that had stood still for longer than its lease."""
    async with open_kv(guard) as store:
        options = WorkerOptions(guard_lease=30.0, guard_window=30.0)
        claim = Guard(store, "t", options).claim(Task("t", value, id="usurper"))
        entry = await store.get(claim.key)
        while entry is not None:
            await store.delete(claim.key, entry.revision)
            entry = await store.get(claim.key)
        assert await claim.acquire() is None
    return claim


def test_a_zombie_is_told_and_reports_nothing(guard: str) -> None:
    """Who lost its claim is told to stop; what it says all the same is not reported: it is answered as the heir's."""

    async def main() -> None:
        hall = Hall()
        reasons: list[CancelReason | None] = []

        def do(task: Task, ctx: Context) -> Outcome:
            outcome = hall.do(task, ctx)
            reasons.append(ctx.cancel_reason)
            return outcome

        async with rig() as r:
            options: dict[str, Any] = {"guard": guard, "guard_lease": 1.0, "guard_window": 30.0}
            async with r.running(worker(do), **options) as app:
                await r.send(Task("t", "v", id="mine"))
                await await_until(lambda: hall.inside, 30)
                await usurp(guard, "v")
                await await_until(lambda: reasons, 30)
                assert reasons == [CancelReason.LEASE_LOST]
                await await_until(lambda: app.stats.guard_lost == 1, 30)
                assert await r.nothing("done")
                async with open_kv(guard) as store:
                    options_ = WorkerOptions(guard_lease=30.0, guard_window=30.0)
                    heir = Guard(store, "t", options_)
                    found = await store.get(heir.claim(Task("t", "v")).key)
                    assert found is not None
                    await store.delete(heir.claim(Task("t", "v")).key, found.revision)
                    claim = heir.claim(Task("t", "v", id="usurper"))
                    # The one that was handed back may come in between: then it is done, which is right as well.
                    if await claim.acquire() is None:
                        assert await heir.finish(claim, complete("the heir's"), "", "")
                hall.go.set()
                (done,) = await r.take(1)
                await r.idle()
                assert done["id"] == "mine"
                assert done["msg"] in ("the heir's", "by mine")
                assert await r.nothing("done")

    asyncio.run(main())


def test_a_claim_lost_at_the_last_moment(local: str) -> None:
    """A task that ended well while its claim was already gone is not reported, but done again."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r:
            async with r.running(worker(hall.do), guard=local) as app:
                await r.send(Task("t", "v", id="mine"))
                await await_until(lambda: hall.inside, 30)
                async with open_kv(local) as store:
                    key = Guard(store, "t", WorkerOptions()).claim(Task("t", "v")).key
                    entry = await store.get(key)
                    assert entry is not None
                    await store.delete(key, entry.revision)
                hall.go.set()
                (done,) = await r.take(1)
                await r.idle()
                assert await r.nothing("done")
            assert (done["msg"], hall.began, app.stats.guard_lost) == ("by mine", ["mine", "mine"], 1)

    asyncio.run(main())


def test_a_result_that_did_not_get_through_comes_from_the_store(local: str) -> None:
    """A task whose worker died between its end and its report is answered as it ended, times included."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r, open_kv(local) as store:
            guard = Guard(store, "t", WorkerOptions(guard_window=60.0))
            claim = guard.claim(Task("t", "v", id="mine"))
            assert await claim.acquire() is None
            first, second = "2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"
            assert await guard.finish(claim, complete("before the crash", page="7"), first, second)
            async with r.running(worker(hall.do), guard=local, guard_window=60.0):
                await r.send(Task("t", "v", id="mine"))
                (done,) = await r.take(1)
            assert (done["msg"], done["meta"]) == ("before the crash", {"page": "7"})
            assert (done["started"], done["completed"]) == (first, second)
            assert hall.began == []

    asyncio.run(main())


def test_a_stop_gives_back_what_waits(guard: str) -> None:
    """What waits for another when the application stops goes back to the bus; a claim is given back at once."""

    async def main() -> None:
        hall, second = Hall(), Hall()
        async with rig() as r:
            async with r.running(worker(hall.do), guard=guard) as one:
                await r.send(Task("t", "v", id="a"))
                await await_until(lambda: hall.inside, 30)
                async with r.running(worker(second.do), guard=guard) as two:
                    await r.send(Task("t", "v", id="b"))
                    await await_until(lambda: two.stats.guard_waits == 1, 30)
                assert two.stats.results["released"] == 1
                assert second.began == []
                hall.go.set()
                done = await r.take(2)
                assert {task["id"] for task in done} == {"a", "b"}
                await r.idle()
                assert one.stats.guard_lost == 0
            async with open_kv(guard) as store:
                assert await store.get(Guard(store, "t", WorkerOptions()).claim(Task("t", "v")).key) is None

    asyncio.run(main())


def test_a_stop_cuts_short_and_frees(local: str) -> None:
    """A task that a stop interrupts gives its claim back, so that another instance can go on at once."""

    async def main() -> None:
        hall = Hall()
        hall.outcome = lambda task: error("interrupted")
        async with rig() as r:
            async with r.running(worker(hall.do), guard=local, kill_time=0.05):
                await r.send(Task("t", "v", id="a"))
                await await_until(lambda: hall.inside, 30)
            async with open_kv(local) as store:
                assert await store.get(Guard(store, "t", WorkerOptions()).claim(Task("t", "v")).key) is None
            hall.go.set()
            hall.outcome = lambda task: complete()
            async with r.running(worker(hall.do), guard=local):
                (done,) = await r.take(1)
            assert done["id"] == "a"

    asyncio.run(main())


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_every_isolation(local: str, isolation: str) -> None:
    """The guard holds for code that runs inline and in processes."""

    async def main() -> None:
        async with rig() as r:
            launch = Awaits if isolation == "inline" else Sleeps
            options: dict[str, Any] = {"guard": local, "guard_window": 60.0, "isolation": isolation}
            async with r.running(launch, **options, max_in_progress=2) as app:
                await r.send(*(Task("t", "v", id=str(n)) for n in range(6)))
                done = await r.take(6)
                await r.idle()
            assert app.stats.runs == 1
            assert app.stats.guard_repeats == 5
            assert {task["id"] for task in done} == set("012345")
            assert {task["msg"] for task in done} == {"done"}

    asyncio.run(main())


class Awaits(Worker):
    """Waits on its loop."""

    type = "t"

    async def do_task(self, ctx: Context) -> Outcome:
        await asyncio.sleep(0.05)
        return complete("done")


class Sleeps(Worker):
    """Waits in its process."""

    type = "t"

    def do_task(self, ctx: Context) -> Outcome:
        ctx.wait(0.05)
        return complete("done")


class Flaky:
    """What a store does before it does what is asked."""

    def __init__(self, store: KeyValue) -> None:
        self.away = False
        self.unsure = 0
        for name in ("get", "create", "update", "delete"):
            setattr(store, name, self._wrapped(getattr(store, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            if self.away:
                raise UnreachableError("the store is away")
            found = await real(*args, **options)
            if self.unsure and real.__name__ != "get":
                self.unsure -= 1
                raise UnconfirmedError("done, and not told")
            return found

        return call


def flaky(app: WorkerApp) -> Flaky:
    """Make the store of this running application flaky."""
    assert isinstance(app.launcher, GuardedLauncher)
    return Flaky(app.launcher._store)


def test_a_store_that_is_away(local: str) -> None:
    """Tasks wait until it is back, and the application is not ready; what was done is reported then."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r:
            async with r.running(worker(hall.do), guard=local, guard_window=60.0, max_in_progress=2) as app:
                await r.send(Task("t", "a", id="a"))
                await await_until(lambda: hall.inside, 30)
                store = flaky(app)
                store.away = True
                await r.send(Task("t", "b", id="b"))
                await await_until(lambda: "the store is away" in Report(app).ready()[1], 30)
                assert not Report(app).ready()[0]
                hall.go.set()
                await await_until(lambda: not hall.inside, 30)
                assert hall.began == ["a"]
                assert await r.nothing("done")
                store.away = False
                assert {task["id"] for task in await r.take(2)} == {"a", "b"}
                await await_until(lambda: Report(app).ready()[0], 30)
            assert sorted(hall.began) == ["a", "b"]

    asyncio.run(main())


def test_answers_that_get_lost(local: str) -> None:
    """Whatever the store did without confirming it, each task is done and reported once."""

    async def main() -> None:
        hall = Hall()
        hall.go.set()
        async with rig() as r:
            async with r.running(worker(hall.do), guard=local, max_in_progress=2) as app:
                await await_until(lambda: app.receiver is not None and app.receiver.receiving, 30)
                flaky(app).unsure = 10
                await r.send(*(Task("t", f"v{n}", id=f"{n}") for n in range(10)))
                done = await r.take(10)
                await r.idle()
                assert app.stats.guard_lost == 0
            assert sorted(task["id"] for task in done) == sorted(hall.began) == list("0123456789")

    asyncio.run(main())


def test_a_store_away_for_longer_than_the_lease(local: str) -> None:
    """Who cannot renew its claim stops before it ends, for nobody can say who has it next; the task is done again."""

    async def main() -> None:
        hall = Hall()
        async with rig() as r:
            async with r.running(worker(hall.do), guard=local, guard_lease=1.0) as app:
                await r.send(Task("t", "a", id="a"))
                await await_until(lambda: hall.inside, 30)
                store = flaky(app)
                store.away = True
                await await_until(lambda: not hall.inside, 30)
                store.away = False
                await await_until(lambda: app.stats.guard_lost == 1, 30)
                hall.go.set()
                (done,) = await r.take(1)
                await r.idle()
                assert await r.nothing("done")
            assert (done["id"], hall.began) == ("a", ["a", "a"])

    asyncio.run(main())


def test_what_stands_there_and_is_not_ours(local: str) -> None:
    """A key that holds something else is waited for, not written over."""

    async def main() -> None:
        hall = Hall()
        hall.go.set()
        async with rig() as r, open_kv(local) as store:
            key = Guard(store, "t", WorkerOptions()).claim(Task("t", "v")).key
            revision = await store.create(key, b"mine")
            async with r.running(worker(hall.do), guard=local) as app:
                await r.send(Task("t", "v", id="a"))
                await await_until(lambda: app.stats.guard_waits == 1, 30)
                assert hall.began == []
                await store.delete(key, revision)
                await r.take(1)

    asyncio.run(main())


def test_a_large_outcome_is_remembered_without_its_text(local: str) -> None:
    """What does not fit into the store is left out there, and reported in full the first time."""

    async def main() -> None:
        hall = Hall()
        hall.go.set()
        text = "x" * 2 * 1024**2
        hall.outcome = lambda task: complete(text)
        async with rig() as r:
            async with r.running(worker(hall.do), guard=local, guard_window=60.0):
                await r.send(Task("t", "v", id="a"))
                (first,) = await r.take(1)
                await r.send(Task("t", "v", id="b"))
                (second,) = await r.take(1)
            assert first["msg"].startswith("xxx")
            assert (second["result"], second["msg"], hall.began) == ("complete", "", ["a"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "wrong", "told"),
    [
        ({"guard": "redis://localhost"}, BusURLError, "redis keeps no keys and values"),
        ({"guard": "nats://localhost"}, BusURLError, "name a bucket"),
        ({"guard": "sqlite:"}, BusURLError, "name a file"),
        ({"guard": "postgresql://u@localhost"}, BusURLError, "name a database"),
        ({"guard_lease": 0.5}, SettingsError, "at least 1 s"),
        ({"ack": "on-receipt"}, SettingsError, "--ack on-done"),
    ],
)
def test_wrong_options(options: dict[str, Any], wrong: type[Exception], told: str, local: str) -> None:
    """What cannot work is told before anything is received."""

    async def main() -> None:
        async with rig() as r:
            app = r.app(worker(lambda task, ctx: None), **{"guard": local, **options})
            with pytest.raises(wrong, match=told):
                await app.run()

    asyncio.run(main())


def test_a_bucket_without_time_to_live(tmp_path: Path) -> None:
    """A store that cannot forget is refused at the start."""
    import nats
    from nats.js.api import StreamConfig

    async def main(url: str) -> None:
        client = await nats.connect(url)
        plain = StreamConfig(name="KV_plain", subjects=["$KV.plain.>"], max_msgs_per_subject=1)
        await client.jetstream().add_stream(plain)
        await client.close()
        async with rig() as r:
            with pytest.raises(UnsupportedError, match="cannot forget by itself"):
                await r.app(worker(lambda task, ctx: None), guard=f"{url}/plain").run()

    with nats_server(tmp_path) as server:
        asyncio.run(main(server.url))


def test_requeue_needs_delays(local: str) -> None:
    """Where a task would come again at once, without end, it is refused."""

    async def main() -> None:
        options = WorkerOptions(guard=local, guard_running="requeue")
        launcher = GuardedLauncher(worker(lambda task, ctx: None), options, "t", Stats())
        with pytest.raises(SettingsError, match="cannot show a task later"):
            await launcher.open(Capabilities(durability=Durability.D0, nack_delay=None))

    asyncio.run(main())
