"""The alerts taskmaster as a real process: told to a real web hook, over kills, restarts and a hook that is away."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from task.outcome import Result
from task.task import Task
from tests.acceptance.support import pending, publish, taken
from tests.helpers import wait_until
from tests.receivers import Hook, hook
from tests.taskbus_command import start, taskbus

RULES = """
[[channel]]
id = "hook"
kind = "webhook"
url = "{url}"
timeout = "2s"

[[rule]]
id = "all"
on = ["alert", "exhausted", "unfinished"]
to = "hook"
collect = "{collect}"
min_interval = "{interval}"
max_interval = "{interval}"

[[deadline]]
topic = "load"
within = "{within}"
"""


def write_rules(
    folder: Path, server: Hook, collect: str = "200ms", interval: str = "100ms", within: str = "1h"
) -> None:
    text = RULES
    for name, value in (("url", server.url), ("collect", collect), ("interval", interval), ("within", within)):
        text = text.replace("{" + name + "}", value)
    (folder / "rules.toml").write_text(text)


ARGS = ("taskmaster", "alerts", "rules.toml", "--bus", "sqlite:work.db?lease=2s", "--log-format", "json")


@contextmanager
def running(folder: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The taskmaster at work, its log in the file ``log``, stopped in order at the end."""
    with (folder / "log").open("ab") as log:
        process = start(*ARGS, *more, cwd=folder, stderr=log, stdout=subprocess.DEVNULL)
    begun = (folder / "log").read_text().count('"event":"started"')
    try:
        wait_until(
            lambda: (folder / "log").read_text().count('"event":"started"') > begun or process.poll() is not None
        )
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (folder / "log").read_text()
    assert "canary" not in (folder / "log").read_text()


def url(folder: Path) -> str:
    return f"sqlite:{folder}/work.db"


def alert(id: str, kind: str = "load", result: Result = Result.ALERT) -> Task:
    return Task(kind, f"v{id}", id=id).replace(result=result, msg=f"broke {id}")


def counts(server: Hook) -> Counter[str]:
    """How many were told, by kind."""
    found: Counter[str] = Counter()
    for notice in {posted.body["id"]: posted.body for posted in server.posted}.values():
        for group in notice["groups"]:
            found[group["kind"]] += group["count"]
    return found


def test_alerts_reach_people(tmp_path: Path) -> None:
    """Alerts and tasks given up are told; after a restart nothing is told again. What is no task is a dead letter."""
    with hook() as server:
        write_rules(tmp_path, server)
        publish(url(tmp_path), alert("1"), alert("2"), alert("3", result=Result.COMPLETE), b"nonsense", topic="done")
        publish(url(tmp_path), alert("4", result=Result.ERROR), topic="retry-failed")
        with running(tmp_path):
            wait_until(lambda: counts(server) == {"alert": 2, "exhausted": 1})
        told = len(server.posted)
        with running(tmp_path):
            publish(url(tmp_path), alert("5"), topic="done")
            wait_until(lambda: counts(server) == {"alert": 3, "exhausted": 1})
        assert len(server.posted) == told + 1
    assert [letter["code"] for letter in taken(url(tmp_path), "alerts.dead")] == ["not-json"]


def test_a_hook_that_is_away(tmp_path: Path) -> None:
    """It is seen in the log and on the status page, and the alert is told when the hook is back."""
    with hook() as server:
        port = server.port
        write_rules(tmp_path, server)
    publish(url(tmp_path), alert("1"), topic="done")
    with running(tmp_path, "--status-port", "0"):
        wait_until(lambda: '"event":"alert-failed"' in (tmp_path / "log").read_text())
        status = (tmp_path / "log").read_text().partition('"url":"')[2].partition('"')[0]
        found = json.load(urlopen(status))
        assert found["channels"]["hook"]["leads_to"] == f"http://127.0.0.1:{port}/***"
        assert "Connection refused" in found["trouble"]
        assert "canary" not in json.dumps(found)
        with hook(port) as server:
            wait_until(lambda: counts(server) == {"alert": 1}, 30)
            wait_until(lambda: '"event":"alert-recovered"' in (tmp_path / "log").read_text())
            wait_until(lambda: json.load(urlopen(status))["trouble"] == "")


def test_unfinished_past_its_deadline(tmp_path: Path) -> None:
    """A task that nobody does is told of; one that was done, also while this was down, is not."""
    with hook() as server:
        write_rules(tmp_path, server, within="1s")
        publish(url(tmp_path), Task("load", id="1"), Task("load", id="2"), topic="load")
        with running(tmp_path):
            wait_until(lambda: pending(url(tmp_path), "load", "alerts").total == 0)
        publish(url(tmp_path), alert("1", result=Result.COMPLETE), topic="done")
        seen = time.time()
        wait_until(lambda: time.time() > seen + 1.1)  # the deadline passes while nobody looks
        with running(tmp_path):
            wait_until(lambda: counts(server)["unfinished"] > 0, 30)
        (group,) = server.posted[-1].body["groups"]
        assert [example["id"] for example in group["examples"]] == ["2"]
        assert counts(server) == {"unfinished": 1}
    # The workers of the topic have theirs too: this one only looked.
    assert pending(url(tmp_path), "load", "load").total == 2


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_while_alerts_come(tmp_path: Path) -> None:
    """Killed at random moments, it counts each alert once and forgets none; a notice that is repeated has its id."""
    total, kills = 4000, 20
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with hook() as server:
        write_rules(tmp_path, server)
        for number in range(kills):
            some = range(number * total // kills, (number + 1) * total // kills)
            publish(url(tmp_path), *(alert(str(one)) for one in some), topic="done")
            process = start(*ARGS, cwd=tmp_path, stdout=subprocess.DEVNULL)
            assert process.stderr is not None
            process.stderr.readline()  # it logs that it has begun
            time.sleep(dice.uniform(0.0, 1.0))  # any moment will do, so there is none to wait for
            process.kill()
            process.communicate()
        with running(tmp_path):
            wait_until(lambda: counts(server)["alert"] >= total, 60)
        repeated = len(server.posted) - len({posted.body["id"] for posted in server.posted})
        print(f"{kills} kills, {len(server.posted)} notices, {repeated} repeated")
        assert counts(server) == {"alert": total}
        assert repeated <= kills


def test_dry_run_and_test(tmp_path: Path) -> None:
    """--dry-run shows what would be told of a file of done tasks; --test tells every channel, and says if one fails."""
    with hook() as server:
        write_rules(tmp_path, server)
        line = b'{"type":"load","task":"v","id":"1","result":"alert","msg":"broke"}\n'
        run = taskbus("taskmaster", "alerts", "rules.toml", "--dry-run", "-", cwd=tmp_path, stdin=line)
        assert run.code == 0
        assert "to hook: 1 alert load" in run.out
        assert server.posted == []
        assert [path.name for path in tmp_path.iterdir()] == ["rules.toml"]
        run = taskbus("taskmaster", "alerts", "rules.toml", "--test", cwd=tmp_path)
        assert (run.code, len(server.posted)) == (0, 1)
    run = taskbus("taskmaster", "alerts", "rules.toml", "--test", cwd=tmp_path)
    assert run.code == 1
    assert "Connection refused" in run.err
    assert "canary" not in run.err
