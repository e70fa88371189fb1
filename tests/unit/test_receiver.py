"""The way of a task through an application, on the in-memory bus."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from task import (
    Context,
    Outcome,
    Reject,
    RetryLater,
    Task,
    Worker,
    alert,
    complete,
    error,
    reject,
    retry_later,
    warn,
)
from task.context import CancelReason
from task.exits import Exit
from tests.helpers import await_until
from tests.unit.engine import rig, worker


def test_a_task_becomes_a_done_task() -> None:
    """The done task has what the task had, its result, message, times and merged meta, and is acknowledged."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t", "v", id="1", meta={"a": "1"}, extra={"color": "red"}))
            async with r.running(worker(lambda task, ctx: complete(f"did {task.value}", b="2")), group="g"):
                (done,) = await r.take(1)
                await r.idle("g")
            assert done["id"] == "1"
            assert done["result"] == "complete"
            assert done["msg"] == "did v"
            assert done["meta"] == {"a": "1", "b": "2"}
            assert done["color"] == "red"
            assert done["started"] <= done["completed"]
            assert r.exit is Exit.OK

    asyncio.run(scenario())


@pytest.mark.parametrize("outcome", [error("no"), alert("no"), warn("hm")])
def test_every_result_is_published(outcome: Outcome) -> None:
    """Without retries each result ends the task, and only the done topic hears of it."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(lambda task, ctx: outcome)):
                (done,) = await r.take(1)
                await r.idle()
            assert (done["result"], done["msg"]) == (outcome.result, outcome.msg)
            assert await r.nothing("t.dead")

    asyncio.run(scenario())


def _exits(task: Task, ctx: Context) -> None:
    raise SystemExit(3)


def _raises(task: Task, ctx: Context) -> None:
    raise ValueError("bad \ud800 thing")


@pytest.mark.parametrize(
    ("do", "text"),
    [
        (_raises, "ValueError: bad ? thing"),
        (_exits, "SystemExit: 3"),
        (lambda task, ctx: "fine", "the worker returned str"),
        (lambda task, ctx: 5, "the worker returned int"),
    ],
)
def test_bad_workers_end_with_error(do: Any, text: str) -> None:
    """A worker that raises, exits or returns nonsense ends the task with error; the next task is done."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"), Task("t"))
            async with r.running(worker(do)):
                done = await r.take(2)
            assert [task["result"] for task in done] == ["error", "error"]
            assert all(text in task["msg"] for task in done)

    asyncio.run(scenario())


@pytest.mark.no_faults("an injected fault counts as an attempt")
def test_retries_then_dead_letter() -> None:
    """An error is tried again with a rising attempt; exhausted it is done with error and a dead letter with history."""

    async def scenario() -> None:
        attempts = []

        def do(task: Task, ctx: Context) -> Outcome:
            attempts.append(ctx.attempt)
            return error(f"failed {ctx.attempt}")

        async with rig() as r:
            await r.send(Task("t", "v", id="1"))
            async with r.running(worker(do), retries=2, retry_delay=0.01):
                (done,) = await r.take(1)
                (dead,) = await r.take(1, "t.dead")
                await r.idle()
            assert attempts == [1, 2, 3]
            assert (done["id"], done["result"], done["msg"]) == ("1", "error", "failed 3")
            assert dead["code"] == "retries-exhausted"
            assert dead["history"] == ["failed 1", "failed 2"]
            assert dead["attempts"] == 3

    asyncio.run(scenario())


def test_a_retry_that_works() -> None:
    """A task that works at the second attempt leaves one done task and nothing else."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            do = worker(lambda task, ctx: error("not yet") if ctx.attempt == 1 else complete())
            async with r.running(do, retries=1, retry_delay=0.01):
                (done,) = await r.take(1)
                await r.idle()
            assert done["result"] == "complete"
            assert await r.nothing("done")
            assert await r.nothing("t.dead")

    asyncio.run(scenario())


def _later(task: Task, ctx: Context) -> Outcome:
    if ctx.attempt == 1:
        raise RetryLater("10ms", "not there yet")
    return retry_later(0.01) if ctx.attempt == 2 else complete()


def test_retry_later_needs_no_retries() -> None:
    """RetryLater, raised or returned, repeats the task whatever --retries says."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(_later)):
                (done,) = await r.take(1)
            assert done["result"] == "complete"

    asyncio.run(scenario())


@pytest.mark.no_faults("an injected fault counts as an attempt")
def test_retry_later_ends_at_max_attempts() -> None:
    """A task that is put off for ever is dead-lettered at max_attempts."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(lambda task, ctx: retry_later(0.001, "no file")), max_attempts=3):
                (dead,) = await r.take(1, "t.dead")
                (done,) = await r.take(1)
            assert (dead["code"], dead["attempts"]) == ("retries-exhausted", 3)
            assert (done["result"], done["msg"]) == ("error", "no file")

    asyncio.run(scenario())


def _rejects(task: Task, ctx: Context) -> Outcome:
    raise Reject("no such table")


@pytest.mark.no_faults("an injected fault counts as an attempt")
@pytest.mark.parametrize("do", [_rejects, lambda task, ctx: reject("no such table")])
def test_reject_is_never_retried(do: Any) -> None:
    """A rejected task is dead-lettered and done with error at once, retries or not."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(do), retries=5):
                (dead,) = await r.take(1, "t.dead")
                (done,) = await r.take(1)
            assert (dead["code"], dead["reason"], dead["attempts"]) == ("rejected", "no such table", 1)
            assert done["result"] == "error"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"nonsense", "not-json"),
        (b"[1]", "not-object"),
        (b'{"type":"t","task":"\xff"}', "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"type":"t","n":NaN}', "not-json"),
        (b'{"type":"t","task":"\\ud800"}', "not-json"),
        (b'{"task":"v"}', "no-type"),
        (b'{"type":"other","task":"v"}', "wrong-type"),
        (b'{"type":"t","task":"v","created":"yesterday"}', "bad-time"),
        (b'{"type":"t","task":"' + b"x" * 300_000 + b'"}', "too-large"),
        (b'{"type":"t","meta":{"expires":"2020-01-01T00:00:00Z"}}', "expired"),
        (b'{"type":"t","meta":{"not_before":"soon"}}', "bad-time"),
    ],
)
def test_bad_messages_are_dead_lettered(body: bytes, code: str) -> None:
    """What is no task for this worker is kept with the reason and its original bytes, and the next task is done."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(body, Task("t", "good"))
            async with r.running(worker(lambda task, ctx: None), max_task_size=200_000):
                (dead,) = await r.take(1, "t.dead")
                (done,) = await r.take(1)
            assert dead["code"] == code
            assert dead["reason"]
            from task.dead import original

            assert original(dead) == body
            assert done["task"] == "good"

    asyncio.run(scenario())


@pytest.mark.parametrize(("policy", "results"), [("reject", ["error", "complete"]), ("ignore", ["complete"])])
def test_wrong_type_policies(policy: str, results: list[str]) -> None:
    """reject answers with error, ignore with nothing; tasks of the right type are done under either."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("other"), Task("t"))
            async with r.running(worker(lambda task, ctx: None), wrong_type=policy):
                done = await r.take(len(results))
                await r.idle()
            assert [task["result"] for task in done] == results
            assert await r.nothing("done")
            assert await r.nothing("t.dead")

    asyncio.run(scenario())


@pytest.mark.no_faults("an injected fault counts as an attempt")
def test_not_before_waits() -> None:
    """A task with not_before in the future is handed back until then, without using up an attempt."""

    async def scenario() -> None:
        from datetime import UTC, datetime, timedelta

        from task.times import format_time

        due = datetime.now(UTC) + timedelta(seconds=0.3)
        async with rig() as r:
            await r.send(Task("t", meta={"not_before": format_time(due)}))
            async with r.running(worker(lambda task, ctx: complete(str(ctx.attempt)))):
                (done,) = await r.take(1)
            assert done["msg"] == "1"
            assert done["started"] >= format_time(due)

    asyncio.run(scenario())


def test_lifetime_is_exact() -> None:
    """lifetime=N does N tasks, all of them to the end, and leaves the others on the bus."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(*(Task("t") for _ in range(10)))
            app = r.app(worker(lambda task, ctx: None), lifetime=4)
            assert await app.run() is Exit.OK
            assert len(await r.take(4)) == 4
            assert await r.nothing("done")
            assert (await r.bus.depth("t", "t")).ready == 6

    asyncio.run(scenario())


def test_drain_ends_when_all_is_settled() -> None:
    """drain does everything, also what is delayed, and ends."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(*(Task("t") for _ in range(200)))
            await r.send(Task("t"), delay=0.3)
            assert await r.app(worker(lambda task, ctx: None), drain=True).run() is Exit.OK
            assert len(await r.take(201)) == 201

    asyncio.run(scenario())


def test_one_at_a_time_is_lazy() -> None:
    """An instance busy with one task holds no other: the rest stays ready for somebody else."""

    async def scenario() -> None:
        begun, go = threading.Event(), threading.Event()

        def do(task: Task, ctx: Context) -> None:
            begun.set()
            go.wait(20)

        async with rig() as r:
            await r.send(*(Task("t") for _ in range(10)))
            async with r.running(worker(do)) as app:
                await asyncio.to_thread(begun.wait, 20)
                depth = await r.bus.depth("t", "t")
                assert (depth.in_flight, depth.ready) == (1, 9)
                assert app.receiver is not None
                assert app.receiver.held == 1
                go.set()
                await r.take(10)

    asyncio.run(scenario())


@pytest.mark.no_faults("what an injected fault delays is handed back later")
def test_what_waits_behind_a_long_task_is_handed_back() -> None:
    """After a run of tiny tasks a long one keeps nothing from an idle instance."""

    async def scenario() -> None:
        begun, go = threading.Event(), threading.Event()

        def do(task: Task, ctx: Context) -> None:
            if task.value == "long":
                begun.set()
                go.wait(20)

        async with rig() as r:
            await r.send(*(Task("t") for _ in range(3000)), Task("t", "long"), *(Task("t") for _ in range(500)))
            async with r.running(worker(do)) as first:
                await asyncio.to_thread(begun.wait, 20)
                async with r.running(worker(do)) as second:
                    await r.take(3500)
                    assert second.stats.results["complete"] >= 1
                    receiver = first.receiver
                    assert receiver is not None
                    await await_until(lambda: receiver.held == 1)
                    go.set()
                await r.take(1)
            assert await r.nothing("done")

    asyncio.run(scenario())


def test_several_in_progress() -> None:
    """max_in_progress tasks run side by side, and no more."""

    async def scenario() -> None:
        barrier = threading.Barrier(3, timeout=20)

        def do(task: Task, ctx: Context) -> None:
            barrier.wait()

        async with rig() as r:
            await r.send(*(Task("t") for _ in range(6)))
            async with r.running(worker(do), max_in_progress=3):
                assert len(await r.take(6)) == 6

    asyncio.run(scenario())


class AsyncWorker(Worker):
    type = "t"

    async def do_task(self, ctx: Context) -> Outcome:
        await asyncio.sleep(3600 if self.task.value == "hang" else 0)
        return complete("async")


def test_async_workers_run_side_by_side() -> None:
    """Async tasks share a loop that is not the bus's; a waiting one does not hold up the others."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t", "hang"), *(Task("t") for _ in range(50)))
            async with r.running(AsyncWorker, max_in_progress=2, kill_time=0.1):
                assert len(await r.take(50)) == 50
            assert r.exit is Exit.INTERRUPTED
            depth = await r.bus.depth("t", "t")
            assert (depth.ready, depth.in_flight) == (1, 0)

    asyncio.run(scenario())


def test_shutdown_lets_running_tasks_end() -> None:
    """Within the kill time a running task ends and counts; what was not begun goes back."""

    async def scenario() -> None:
        begun, go = threading.Event(), threading.Event()

        def do(task: Task, ctx: Context) -> None:
            begun.set()
            go.wait(20)

        async with rig() as r:
            await r.send(Task("t"), Task("t"))
            async with r.running(worker(do), prefetch=1) as app:
                await asyncio.to_thread(begun.wait, 20)
                app.stop()
                await r.until(ready=1, in_flight=1)
                go.set()
            assert r.exit is Exit.OK
            assert len(await r.take(1)) == 1
            assert (await r.bus.depth("t", "t")) == (1, 0, 0)

    asyncio.run(scenario())


@pytest.mark.no_faults("an injected fault counts as an attempt")
def test_shutdown_cancels_and_hands_back() -> None:
    """A task that outlasts the kill time is told to stop and handed back, its attempt uncounted; the exit says so."""

    async def scenario() -> None:
        begun = threading.Event()
        reasons = []

        def do(task: Task, ctx: Context) -> Outcome:
            begun.set()
            ctx.wait(20)
            reasons.append(ctx.cancel_reason)
            ctx.raise_if_cancelled()
            return complete()

        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(do), kill_time=0.05):
                await asyncio.to_thread(begun.wait, 20)
            assert r.exit is Exit.INTERRUPTED
            assert reasons == [CancelReason.SHUTDOWN]
            consumer = await r.bus.consumer("t", "t")
            (delivery,) = await consumer.receive()
            assert delivery.attempt == 1
            assert await r.nothing("done")

    asyncio.run(scenario())


def test_a_task_that_ignores_everything_is_handed_back() -> None:
    """A thread that never looks at its context cannot keep the application or the task."""

    async def scenario() -> None:
        begun, go = threading.Event(), threading.Event()

        def do(task: Task, ctx: Context) -> None:
            begun.set()
            go.wait(30)

        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(do), kill_time=0.05) as app:
                await asyncio.to_thread(begun.wait, 20)
                app.stop()
            assert r.exit is Exit.INTERRUPTED
            assert (await r.bus.depth("t", "t")) == (1, 0, 0)
            go.set()
            assert await r.nothing("done")

    asyncio.run(scenario())


def test_soft_timeout_cancels() -> None:
    """A task past its time limit is told so; what it answers counts, and an interruption is an error that names it."""

    async def scenario() -> None:
        def do(task: Task, ctx: Context) -> Outcome:
            assert ctx.remaining is not None
            ctx.wait(20)
            if task.value == "partly":
                return warn("partly done")
            ctx.raise_if_cancelled()
            return complete()

        async with rig() as r:
            await r.send(Task("t", "partly"), Task("t", "leaves"))
            async with r.running(worker(do), timeout=0.1):
                first, second = await r.take(2)
            assert (first["result"], first["msg"]) == ("warn", "partly done")
            assert second["result"] == "error"
            assert second["msg"].startswith("timed out after")

    asyncio.run(scenario())


def test_hard_timeout_gives_up() -> None:
    """A thread that does not end is left behind: its task ends with error, later tasks are done, its result is void."""

    async def scenario() -> None:
        go = threading.Event()

        def do(task: Task, ctx: Context) -> None:
            if task.value == "hang":
                go.wait(30)

        async with rig() as r:
            await r.send(Task("t", "hang"), Task("t", "fine"))
            async with r.running(worker(do), timeout=0.1, hard_timeout=0.2):
                done = await r.take(2)
                go.set()
                await r.idle()
            assert {task["task"]: task["result"] for task in done} == {"hang": "error", "fine": "complete"}
            assert await r.nothing("done")

    asyncio.run(scenario())


def test_hard_timeout_inline() -> None:
    """An async worker that blocks its loop is given up too, and others go on."""

    async def scenario() -> None:
        go = threading.Event()

        class Blocks(Worker):
            type = "t"

            async def do_task(self, ctx: Context) -> Outcome:
                if self.task.value == "hang":
                    go.wait(30)
                return complete()

        async with rig() as r:
            await r.send(Task("t", "hang"), Task("t", "fine"))
            async with r.running(Blocks, timeout=0.1, hard_timeout=0.2):
                first, second = await r.take(2)
                go.set()
            assert (first["task"], first["result"]) == ("hang", "error")
            assert (second["task"], second["result"]) == ("fine", "complete")

    asyncio.run(scenario())


def test_a_lost_lease_is_counted_once() -> None:
    """Whoever finds out, extending it or settling its result, and if both do."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(lambda task, ctx: complete(str(ctx.wait(20))))) as app:
                await await_until(lambda: app.receiver is not None and app.receiver.held == 1)
                assert app.receiver is not None
                lost = list(app.receiver._held)
                app.receiver._lost(lost)
                app.receiver._lost(lost)
                assert app.stats.lease_lost == 1

    asyncio.run(scenario())


@pytest.mark.no_faults("an injected fault takes leases away")
def test_a_long_task_keeps_its_lease() -> None:
    """A task four times longer than the lease is done once."""

    async def scenario() -> None:
        runs = []

        def do(task: Task, ctx: Context) -> None:
            runs.append(ctx.attempt)
            ctx.wait(0.8)

        async with rig("?lease=200ms") as r:
            await r.send(Task("t"))
            async with r.running(worker(do)), r.running(worker(do)):
                await r.take(1)
                await r.idle()
            assert runs == [1]
            assert await r.nothing("done")

    asyncio.run(scenario())


def test_ack_on_receipt() -> None:
    """With ack=on-receipt the task is off the bus before it runs, and still gets its done task."""

    async def scenario() -> None:
        begun, go = threading.Event(), threading.Event()

        def do(task: Task, ctx: Context) -> None:
            begun.set()
            go.wait(20)

        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(do), ack="on-receipt"):
                await asyncio.to_thread(begun.wait, 20)
                assert (await r.bus.depth("t", "t")).total == 0
                go.set()
                assert len(await r.take(1)) == 1

    asyncio.run(scenario())


def test_no_done_topic() -> None:
    """done_topic "-" publishes nothing, and the task is settled."""

    async def scenario() -> None:
        async with rig() as r:
            await r.send(Task("t"))
            async with r.running(worker(lambda task, ctx: None), done_topic="-", lifetime=1) as app:
                await r.idle()
            assert app.stats.done == 1
            assert await r.bus.topics() == ["t"]

    asyncio.run(scenario())


def test_a_done_task_that_does_not_fit_is_cut() -> None:
    """A message that makes the done task too large is cut; one so large that nothing fits is cut to its frame."""

    async def scenario() -> None:
        async with rig("?max_size=2000") as r:
            await r.send(Task("t", "a"))
            async with r.running(worker(lambda task, ctx: complete("x" * 100_000, note="y" * 5000))):
                (done,) = await r.take(1)
            assert done["result"] == "complete"
            assert "(cut:" in done["msg"]
            assert done["type"] == "t"

    asyncio.run(scenario())


def test_a_dead_letter_that_does_not_fit_is_split() -> None:
    """A dead letter over the bus's limit travels in parts whose bytes joined are the original."""

    async def scenario() -> None:
        from base64 import b64decode

        body = b'{"type":"t","x":"' + b'"' * 3900
        async with rig("?max_size=4000") as r:
            await r.send(body)
            async with r.running(worker(lambda task, ctx: None)):
                letters = await r.take(1, "t.dead")
                letters += await r.take(letters[0]["parts"] - 1, "t.dead")
            assert b"".join(b64decode(letter["body_base64"]) for letter in letters) == body
            assert [letter["part"] for letter in letters] == list(range(1, letters[0]["parts"] + 1))

    asyncio.run(scenario())


def test_the_go_dialect_is_answered_in_it() -> None:
    """A task as the Go toolkit writes it is done and answered with its keys."""

    async def scenario() -> None:
        async with rig() as r:
            body = b'{"type":"t","info":"x?a=1","created":"2017-10-28T15:42:07Z","id":"7","meta":"k=v%26w"}'
            await r.send(body)
            async with r.running(worker(lambda task, ctx: complete("ok", n="1"))):
                (done,) = await r.take(1)
            assert (done["info"], done["id"], done["meta"]) == ("x?a=1", "7", "k=v%26w&n=1")
            assert "ended" in done
            assert "task" not in done
            assert "completed" not in done

    asyncio.run(scenario())
