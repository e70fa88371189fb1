"""Cases of the taskmasters that follow done tasks: on-done, workflow, retry; and alerts, which tells of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import orjson

from bus import Message
from task.codec import decode, encode, encode_done
from task.dead import original
from task.outcome import Result
from task.task import Task
from tests.crash_matrix.case import Case, Deed, Key

__all__ = ["Alerts", "OnDone", "Retry", "Workflow"]

_AT = "2026-01-01T00:00:00.000Z"


def _done(task: Task, result: str = "complete") -> Message:
    return Message("done", encode_done(task, result, f"did {task.value}", _AT, _AT))


class OnDone(Case):
    """A fan-out, a chain, and two that are waited for; every done task comes twice and is known again."""

    name = "on-done"
    inputs = (("done", "on-done"),)
    outputs = ("part", "store", "merge")
    _PER = 7
    _RULES = """
[[rule]]
id = "split"
match = { type = "extract" }
type = "part"
task = "{parent.value}/{item}"
for_each = "1..3"

[[rule]]
id = "store"
match = { type = "part" }
type = "store"
task = "{parent.value}"

[[rule]]
id = "merge"
all = [ { type = "visits" }, { type = "orders" } ]
by = "{meta:day}"
type = "merge"
task = "{parent.value}"
"""

    @property
    def expected(self) -> int:
        return self.portions * self._units * self._PER

    def args(self, url: str) -> Sequence[str]:
        options = ("--bus", url, "--dedupe", "1h", "--log-format", "json")
        return ("taskmaster", "on-done", "rules.toml", *options)

    def prepare(self) -> None:
        (self.folder / "rules.toml").write_text(self._RULES)

    def feed(self, portion: int) -> Iterable[Deed]:
        for again in range(2):
            for unit in range(self._units):
                name = f"{portion}-{unit}"
                yield _done(Task("extract", name, id=f"e-{name}"))
                kinds = ("visits", "orders") if (unit + again) % 2 else ("orders", "visits")
                for kind in kinds:
                    yield _done(Task(kind, f"{kind}-{name}", id=f"{kind}-{name}", meta={"day": name}))

    def answer(self, topic: str, task: Task) -> Message | None:
        return None if topic == "merge" else _done(task)

    @property
    def _units(self) -> int:
        return -(-self.size // self._PER)


class Workflow(Case):
    """Runs with a fan-out, a task that follows each of them, and one that waits for all; some fail at first."""

    name = "workflow"
    inputs = (("done", "workflow"), ("requests", "workflow"))
    outputs = ("split", "part", "check", "all", "done")
    _PARTS = 24
    #: Parts that fail at first are tried again; the end of the run is told on ``done``.
    _RUN = 2 * _PARTS + 2 + _PARTS // 10 + 1
    _RULES = f"""
[[job]]
type = "split"

[[job]]
type = "part"
depends_on = "split"
for_each = "1..{_PARTS}"
task = "{{item}}"
retry = {{ count = 2, delay = "0s" }}

[[job]]
type = "check"
each = "part"
task = "{{job.part.msg}}"

[[job]]
type = "all"
depends_on = "check"
task = "{{job.check.completed}}"
"""

    @property
    def expected(self) -> int:
        return self.portions * self._runs * self._RUN

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "workflow", "flow.toml", "--bus", url, "--state", "flow.db", "--log-format", "json")

    def prepare(self) -> None:
        (self.folder / "flow.toml").write_text(self._RULES)

    def feed(self, portion: int) -> Iterable[Deed]:
        for run in range(self._runs):
            yield Message("requests", encode(Task("flow", id=f"{portion}-{run}")))

    def answer(self, topic: str, task: Task) -> Message | None:
        if topic == "done":
            return None
        fails = task.type == "part" and task.value.endswith("0") and task.meta["attempt"] == "1"
        return _done(task, "error" if fails else "complete")

    def key(self, topic: str, task: dict[str, Any]) -> Key | None:
        if topic == "done":
            return ("end", task["id"], task["result"]) if task["type"] == "flow" else None
        return (topic, task["id"], task["task"], task["meta"]["attempt"])

    @property
    def _runs(self) -> int:
        return max(1, round(self.size / self._RUN))


class Retry(Case):
    """Tasks that fail never, once …, for ever, or for good at once."""

    name = "retry"
    inputs = (("done", "retry"),)
    outputs = ("flaky", "flaky.dead", "retry-failed")
    #: How often each fails, and in how many topics and attempts it is seen with three retries.
    _FAILS: ClassVar = {"0": 1, "1": 2, "2": 3, "3": 4, "4": 4 + 2, "alert": 1}
    _RULES = """
[[rule]]
match = { type = "flaky" }
retries = 3
delay = "100ms"
backoff = "fibonacci"
jitter = 0.5
"""

    @property
    def expected(self) -> int:
        return self.portions * self._units * sum(self._FAILS.values())

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "retry", "rules.toml", "--bus", url, "--state", "state.db", "--log-format", "json")

    def prepare(self) -> None:
        (self.folder / "rules.toml").write_text(self._RULES)

    def feed(self, portion: int) -> Iterable[Deed]:
        for unit in range(self._units):
            for fails in self._FAILS:
                yield Message("flaky", encode(Task("flaky", fails, id=f"{portion}-{unit}-{fails}")))

    def answer(self, topic: str, task: Task) -> Message | None:
        if topic != "flaky":
            return None
        if task.value == "alert":
            return _done(task, "alert")
        return _done(task, "complete" if int(task.meta.get("retry", "0")) >= int(task.value) else "error")

    def key(self, topic: str, task: dict[str, Any]) -> Key | None:
        if topic == "flaky.dead":
            # The history of a letter is part of what it is, and so is the task that it holds.
            tries = tuple((one["attempt"], one["msg"]) for one in task["tries"])
            kept = decode(original(task))
            return (topic, task["id"], task["code"], tries, kept.value, tuple(kept.meta))
        return (topic, task["id"], task["task"], task.get("meta", {}).get("retry", "0"))

    @property
    def _units(self) -> int:
        return -(-self.size // sum(self._FAILS.values()))


class Alerts(Case):
    """Alerts told to a web hook. Into which notice one comes depends on the moment, so what is compared is what was
    told of: each alert once, and a notice that comes again is the same."""

    name = "alerts"
    inputs = (("done", "alerts"), ("retry-failed", "alerts"))
    _RULES = """
[[channel]]
id = "hook"
kind = "webhook"
url = "http://127.0.0.1:{port}/"

[[rule]]
id = "all"
to = "hook"
collect = "50ms"
min_interval = "100ms"
max_interval = "200ms"
"""

    def __init__(self, folder: Path, tasks: int, portions: int) -> None:
        super().__init__(folder, tasks, portions)
        self._notices: dict[str, bytes] = {}
        self._again = 0
        self._lock = threading.Lock()

    @property
    def expected(self) -> int:
        return self.portions * self.size

    @property
    def again(self) -> int:
        return self._again

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "alerts", "rules.toml", "--bus", url, "--log-format", "json")

    def prepare(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _hook(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        (self.folder / "rules.toml").write_text(self._RULES.replace("{port}", str(self._server.server_port)))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def feed(self, portion: int) -> Iterable[Deed]:
        for number in range(self.size):
            task = Task("load", f"v{number}", id=f"{portion}-{number}", job=f"{portion}-{number}")
            if number % 2:
                yield _done(task, "alert")
            else:
                yield Message("retry-failed", encode(task.replace(result=Result.ERROR, msg="given up")))

    def told(self, body: bytes) -> None:
        """A notice came."""
        notice = orjson.loads(body)
        with self._lock:
            if notice["id"] in self._notices:
                assert self._notices[notice["id"]] == body
                self._again += 1
                return
            self._notices[notice["id"]] = body
            self.found += Counter({("notice", one["job"], one["kind"]): one["count"] for one in notice["groups"]})

    def check(self) -> None:
        """No alert is told of in two notices."""
        assert not [key for key, count in self.found.items() if count > 1]


def _hook(case: Alerts) -> type[BaseHTTPRequestHandler]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            body = self.rfile.read(size)
            if len(body) == size:  # it was not killed while it told it
                case.told(body)
                self.send_response(204)
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Hook
