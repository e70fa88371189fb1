"""``python -m tests.crash_matrix.victim STEP ARGUMENT…``: the command ``taskbus ARGUMENT…``, that kills itself.

A step is the beginning, the middle or the end of a call that other processes can see the effect of: messages
published, acknowledged, or both at once; a transaction committed. At step number STEP the process ends with SIGKILL. In
the middle of a call means that the first half of its batch is dealt with. So it is killed in exactly those gaps that a
random moment hardly ever meets.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from apps.cli.main import main
from bus.nats.consumer import NatsConsumer
from bus.nats.producer import NatsProducer
from bus.sql.consumer import SqlConsumer
from bus.sql.producer import SqlProducer
from taskmasters import running
from taskmasters.cron.state import SqliteState
from taskmasters.running import run_until_stopped

__all__ = ["Fuse"]


class Fuse:
    """Counts steps, and kills at the last."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def burn(self, name: str) -> None:
        """A step."""
        self._left -= 1
        if self._left == 0:
            _die(name)

    async def halve(self, name: str, call: Callable[..., Any], items: Any, *rest: Any) -> None:
        """A step in the middle of a call with a batch."""
        if self._left == 1 and len(items) > 1:
            await call(items[: len(items) // 2], *rest)
        self.burn(f"in {name}")

    def watch(self, owner: type, name: str, *, halves: bool) -> None:
        """Make calls of an asynchronous method steps."""
        original = getattr(owner, name)

        async def stepped(self: object, items: Any, *rest: Any, **named: Any) -> Any:
            fuse.burn(f"before {name}")
            if halves:
                await fuse.halve(name, lambda half, *more: original(self, half, *more, **named), items, *rest)
            found = await original(self, items, *rest, **named)
            fuse.burn(f"after {name}")
            return found

        setattr(owner, name, stepped)

    async def run(self, *args: Any) -> bool:
        """Have the taskmaster run: from now on commits are steps. Those before make the tables."""
        self._watch_state()
        return await run_until_stopped(*args)

    def _watch_state(self) -> None:
        event.listen(Engine, "commit", lambda connection: self.burn("before commit"))
        event.listen(Pool, "checkin", lambda connection, record: self.burn("after commit"))
        original = SqliteState.write

        def write(state: SqliteState, fired: Any) -> None:
            self.burn("before commit")
            original(state, fired)
            self.burn("after commit")

        setattr(SqliteState, "write", write)  # noqa: B010 - the checkers want no method assigned


def _die(step: str) -> NoReturn:
    with open("steps", "a") as file:
        file.write(f"{step}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed, and still alive")


if __name__ == "__main__":
    fuse = Fuse(int(sys.argv.pop(1)))
    for producer in (SqlProducer, NatsProducer):
        fuse.watch(producer, "publish_many", halves=True)
    for consumer in (SqlConsumer, NatsConsumer):
        fuse.watch(consumer, "ack", halves=True)
        fuse.watch(consumer, "finish", halves=False)
    setattr(running, "run_until_stopped", fuse.run)  # noqa: B010 - as above
    sys.argv[0] = "taskbus"
    main()
