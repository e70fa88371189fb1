"""The duplicate guard: instances tell each other, in a store they share, which tasks they do and which they have done.

Two tasks are the same to it if group, type, job and value are. Whoever does one holds a lease on its key; what came of
it may stay there for a while. It lowers repeats and is no exactly-once: docs/workers.md says what it does not promise.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from hashlib import blake2b

import orjson

from bus import TooLargeError
from bus.kv import Entry, KeyValue, Lease
from task.errors import SettingsError
from task.options import WorkerOptions
from task.outcome import Outcome, Result
from task.task import Task, new_id
from task.times import now_text

__all__ = ["REPEAT", "Claim", "Done", "Guard", "Running"]

#: Key of the meta of a done task that tells the id of the one that was done in its place.
REPEAT = "repeat_of"
#: The shortest lease, in seconds: stores count in whole ones.
_SHORTEST = 1.0
_HOST = socket.gethostname()


class Claim(Lease):
    """The right to do a task, for as long as it is renewed. ``token`` is nobody else's."""

    def __init__(self, store: KeyValue, key: str, task: Task, seconds: float) -> None:
        self.token = new_id()
        self.id = task.id or ""
        by = f"{_HOST}:{os.getpid()}"
        value = {"state": "running", "id": self.id, "by": by, "since": now_text(), "token": self.token}
        super().__init__(store, key, orjson.dumps(value), seconds)


@dataclass(frozen=True, slots=True)
class Running:
    """The task is being done, by whoever did the one with this ``id``."""

    id: str


@dataclass(frozen=True, slots=True)
class Done:
    """The task was done, and this came of it."""

    id: str
    outcome: Outcome
    started: str
    completed: str


class Guard:
    """The keys of one worker application in ``store``. Made by one instance, used on one event loop.

    Every method that asks the store may raise BusError, and be called again then.
    """

    def __init__(self, store: KeyValue, group: str, options: WorkerOptions) -> None:
        if options.guard_lease < _SHORTEST:
            raise SettingsError(f"--guard-lease must be at least {_SHORTEST:g} s")
        if options.ack != "on-done":
            raise SettingsError("--guard needs --ack on-done: what was acknowledged cannot be handed back")
        self._store = store
        self._group = group
        self._window = options.guard_window
        #: Seconds.
        self.lease = options.guard_lease

    async def check(self) -> None:
        """See that the store can do what is needed. Raises BusError."""
        trial = Claim(self._store, f"guard.trial.{new_id()}", Task("trial"), _SHORTEST)
        await trial.acquire()
        await trial.end()

    def claim(self, task: Task) -> Claim:
        """A claim to be acquired."""
        return Claim(self._store, self._key(task), task, self.lease)

    async def look(self, claim: Claim) -> Done | Running | None:
        """What stands in the way of ``claim``."""
        entry = await self._store.get(claim.key)
        return None if entry is None else self.read(entry)

    def read(self, entry: Entry) -> Done | Running:
        """What an entry says. One that is none of ours counts as a task that runs: it is not written over."""
        try:
            found = orjson.loads(entry.value)
            if found["state"] == "done":
                outcome = Outcome(Result(found["result"]), str(found["msg"]), found["meta"])
                return Done(str(found["id"]), outcome, str(found["started"]), str(found["completed"]))
            return Running(str(found["id"]))
        except (ValueError, TypeError, KeyError):
            return Running("")

    async def finish(self, claim: Claim, outcome: Outcome | None, started: str, completed: str) -> bool:
        """Give ``claim`` back, and remember an outcome that need not come again. False if it was lost before."""
        if not self._window or outcome is None or outcome.result not in _LASTING:
            return await claim.end()
        last = {
            "state": "done",
            "id": claim.id,
            "token": claim.token,
            "result": outcome.result.value,
            "msg": outcome.msg,
            "meta": outcome.meta,
            "started": started,
            "completed": completed,
        }
        try:
            return await claim.end(orjson.dumps(last), ttl=self._window)
        except TooLargeError:
            return await claim.end(orjson.dumps(last | {"msg": "", "meta": None}), ttl=self._window)

    def answer(self, task: Task, found: Done | Running) -> Done:
        """What to report for ``task``, which is not done because of what was found."""
        if isinstance(found, Running):
            told = "not done: one of the same type and value is being done elsewhere"
            return Done(found.id, Outcome(Result.COMPLETE, told, {REPEAT: found.id}), now_text(), now_text())
        if found.id == task.id:
            return found  # it came again because its result did not get through
        outcome = replace(found.outcome, meta={**(found.outcome.meta or {}), REPEAT: found.id})
        return Done(found.id, outcome, now_text(), now_text())

    def _key(self, task: Task) -> str:
        parts = (self._group, task.type, task.job or "", task.value)
        digest = blake2b(digest_size=20)
        for part in parts:
            text = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(text), text))
        return f"guard.{digest.hexdigest()}"

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()


#: Results after which the same task need not be done again.
_LASTING = (Result.COMPLETE, Result.WARN)
