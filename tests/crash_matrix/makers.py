"""Cases of the taskmasters that make tasks of time, files and lists; and of what sends them later, or again."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bus import Message
from task.codec import encode
from task.task import Task
from task.times import parse_time
from taskmasters.cron.rules import instant_text, load_cron_rules
from taskmasters.cron.schedule import parse_schedule
from taskmasters.cron.state import SqliteState
from taskmasters.zone import find_zone
from tests.crash_matrix.case import Case, Deed, Key

__all__ = ["Batch", "CatchUp", "Cron", "Delay", "Files", "Redrive"]


class Cron(Case):
    """Rules that fire every second, in real time: from the first to the last, none is left out."""

    name = "cron"
    outputs = ("tick",)
    #: About how many seconds a life takes, its start included.
    _LIFE = 0.7

    @property
    def expected(self) -> int:
        return 0

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "cron", "rules.toml", "--bus", url, "--log-format", "json")

    def prepare(self) -> None:
        rule = '[[rule]]\nid = "r{}"\ncron = "* * * * * *"\ntype = "tick"\ntask = "{{ts}}"\nmissed = "all"\n'
        count = max(1, round(self.size / self._LIFE))
        (self.folder / "rules.toml").write_text("\n".join(rule.format(number) for number in range(count)))
        rules = load_cron_rules(str(self.folder / "rules.toml"))
        self._began = int(time.time())
        state = SqliteState(str(self.folder / "rules.state.db"))
        state.write([(rule.id, rule.schedule.text, self._began) for rule in rules])
        state.close()

    def key(self, topic: str, task: dict[str, Any]) -> Key | None:
        return (topic, task["id"], task["task"], task["meta"]["cron"])

    def finishing(self) -> None:
        self._goal = instant_text(int(time.time()) + 2)

    def enough(self) -> bool:
        return max((str(key[3]) for key in self.found), default="") >= self._goal

    def wanted(self) -> set[Key] | None:
        rules = load_cron_rules(str(self.folder / "rules.toml"))
        state = SqliteState(str(self.folder / "rules.state.db"))
        fired = state.read({rule.id: rule.schedule.text for rule in rules})
        state.close()
        made = [rule.make(instant, 0.0) for rule in rules for instant in range(self._began + 1, fired[rule.id] + 1)]
        return {("tick", task.id, task.value, task.meta["cron"]) for task in made}


class CatchUp(Case):
    """Each time it is started there is a rule that has missed everything for a month."""

    name = "cron, catching up"
    outputs = ("late",)
    feeds_before = True
    _DAY = (datetime.now(UTC) - timedelta(days=30)).replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def expected(self) -> int:
        return self.portions * min(self.size, 60)

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "cron", "rules.toml", "--bus", url, "--log-format", "json")

    def prepare(self) -> None:
        (self.folder / "rules.toml").write_text('[[rule]]\ntype = "never"\ncron = "0 0 29 2 *"\n')

    def feed(self, portion: int) -> Iterable[Deed]:
        minute = self._DAY + timedelta(minutes=portion)
        cron = f"0-{min(self.size, 60) - 1} {minute.minute} {minute.hour} {minute.day} {minute.month} *"
        yield partial(self._add, f"r{portion}", cron)

    def _add(self, id: str, cron: str) -> None:
        state = SqliteState(str(self.folder / "rules.state.db"))
        state.write([(id, parse_schedule(cron, find_zone("UTC")).text, int(self._DAY.timestamp()) - 1)])
        state.close()
        with (self.folder / "rules.toml").open("a") as file:
            file.write(f'[[rule]]\nid = "{id}"\ntype = "late"\ntask = "{{ts}}"\ncron = "{cron}"\n')
            file.write('missed = "all"\nwindow = "60d"\n')


class Delay(Case):
    """Tasks for the next seconds, none of which is sent before its moment."""

    name = "delay"
    inputs = (("delay", "delay"),)
    outputs = ("t",)

    def __init__(self, folder: Path, tasks: int, portions: int) -> None:
        super().__init__(folder, tasks, portions)
        self._dice = random.Random(portions)

    @property
    def expected(self) -> int:
        return self.portions * self.size

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "delay", "--bus", url, "--state", "state.db", "--log-format", "json")

    def feed(self, portion: int) -> Iterable[Deed]:
        for number in range(self.size):
            moment = datetime.now(UTC) + timedelta(seconds=self._dice.uniform(0.0, 3.0))
            task = Task("t", f"v{number}", id=f"{portion}-{number}", meta={"run_at": moment.isoformat()})
            yield Message("delay", encode(task))

    def key(self, topic: str, task: dict[str, Any]) -> Key | None:
        assert parse_time(task["meta"]["run_at"]) <= datetime.now(UTC), f"{task['id']} came before its time"
        return super().key(topic, task)


class Batch(Case):
    """The same command again and again, from the beginning: what it makes is what one whole run makes."""

    name = "batch --execute"
    outputs = ("load",)
    ends = True
    steps = 30

    @property
    def expected(self) -> int:
        return self.portions * self.size

    def args(self, url: str) -> Sequence[str]:
        dates = ("--from", "2026-01-01", "--for", f"{self.expected - 1}h", "--by", "hour")
        what = ("load", "--task", "s3://{yyyy}/{mm}/{dd}/{hh}", "--batch-id", "again")
        return ("taskmaster", "batch", *what, *dates, "--execute", "--bus", url)

    def finishing(self) -> None:
        self.sent_before = len(self.found)


class Files(Case):
    """Files that arrive, singly and in groups of a folder."""

    name = "files"
    outputs = ("load", "together")
    _GROUP = 5
    _RULES = """
[[rule]]
path = "in/**/*.json"
type = "load"
settle = "50ms"
poll = "1s"

[[rule]]
id = "together"
path = "in/**/*.json"
type = "together"
task = "{group}?files={files}"
settle = "50ms"
poll = "1s"
group_by = "directory"
count = 5
"""

    @property
    def expected(self) -> int:
        return self.portions * self._groups * (self._GROUP + 1)

    def args(self, url: str) -> Sequence[str]:
        return ("taskmaster", "files", "rules.toml", "--bus", url, "--log-format", "json")

    def prepare(self) -> None:
        (self.folder / "rules.toml").write_text(self._RULES)
        (self.folder / "in").mkdir()

    def feed(self, portion: int) -> Iterable[Deed]:
        for number in range(self._groups * self._GROUP):
            folder = self.folder / "in" / f"{portion:03}-{number // self._GROUP:02}"
            yield partial(self._write, folder, number)

    def _write(self, folder: Path, number: int) -> None:
        folder.mkdir(exist_ok=True)
        path = folder / f".{number}"
        path.write_text("x" * (number % 7))
        # The version of a file is made of its time, too, and both runs must see the same.
        os.utime(path, (1767225600, 1767225600))
        path.rename(folder / f"{number}.json")

    @property
    def _groups(self) -> int:
        return -(-self.size // (self._GROUP + 1))


class Redrive(Case):
    """Dead letters sent back, by a command that is killed on the way."""

    name = "redrive --execute"
    inputs = (("t.dead", "redrive"),)
    outputs = ("t",)
    ends = True
    feeds_before = True
    steps = 6

    @property
    def expected(self) -> int:
        return self.portions * self.size

    def args(self, url: str) -> Sequence[str]:
        return ("redrive", "t.dead", "--execute", "--bus", url)

    def feed(self, portion: int) -> Iterable[Deed]:
        for number in range(self.size):
            id = f"{portion}-{number}"
            letter = {
                "dead": "2026-01-01T00:00:00Z",
                "code": "crashed",
                "topic": "t",
                "message_id": id,
                "body": encode(Task("t", f"v{number}", id=id)).decode(),
            }
            yield Message("t.dead", json.dumps(letter).encode())

    def key(self, topic: str, task: dict[str, Any]) -> Key | None:
        return (topic, task["id"], task["task"], task["meta"]["redriven"])
