"""Tasks exchanged with the public Go toolkit, github.com/pcelvng/task, over a real nsqd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.helpers import wait_until
from tests.servers.gotask import programs
from tests.servers.nsq import Nsqd
from tests.taskbus_command import start, taskbus

_LIMIT = 60


def _go(*args: str) -> str:
    """What the Go program printed."""
    done = subprocess.run([programs()[0], *args], capture_output=True, text=True, timeout=_LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _host(nsqd: Nsqd) -> str:
    return f"127.0.0.1:{nsqd.tcp}"


def _channels(nsqd: Nsqd, topic: str) -> list[str]:
    with urlopen(f"http://127.0.0.1:{nsqd.http}/stats?format=json&topic={topic}", timeout=5) as answer:
        found = json.load(answer)["topics"] or []
    return [channel["channel_name"] for entry in found for channel in entry["channels"] if channel["client_count"]]


@contextmanager
def _running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=_LIMIT)


@contextmanager
def _go_worker(nsqd: Nsqd, kind: str) -> Iterator[None]:
    with _running(
        subprocess.Popen(
            [programs()[0], "worker", _host(nsqd), kind], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    ):
        wait_until(lambda: kind in _channels(nsqd, kind))
        yield


def _go_reads(nsqd: Nsqd, topic: str, count: int = 1) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _go("read", _host(nsqd), topic, str(count)).splitlines()]


def test_a_go_worker_does_our_tasks(nsqd: Nsqd, tmp_path: Path) -> None:
    """``send --dialect go --wait`` has a Go worker do a task, and understands how it ended."""
    with _go_worker(nsqd, "load"):
        common = ("--bus", nsqd.url(), "--wait", "--timeout", "30s", "--dialect", "go")
        done = taskbus("send", "load", "s3://b/1?x=ü&y", "--meta", "day=2017", "--job", "j", *common, cwd=tmp_path)
        failed = taskbus("send", "load", "fail", *common, cwd=tmp_path)

    assert done.code == 0, done
    (task,) = done.tasks
    assert (task["info"], task["job"], task["msg"]) == ("s3://b/1?x=ü&y", "j", "did s3://b/1?x=ü&y")
    assert task["meta"] == "day=2017&rows=12"
    assert failed.code == 1, failed
    assert [(task["result"], task["msg"]) for task in failed.tasks] == [("error", "cannot do fail")]


def test_our_tail_and_on_done_follow_a_go_worker(nsqd: Nsqd, tmp_path: Path) -> None:
    """``tail done`` shows what a Go worker did; on-done makes a child of it, which Go can read."""
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\nid = "next"\nmatch = { type = "load", result = "complete" }\ntype = "publish"\n'
        'task = "{parent.value}?rows={meta:rows}"\n'
    )
    bus = ("--bus", nsqd.url())
    with (
        _go_worker(nsqd, "load"),
        _running(start("taskmaster", "on-done", "rules.toml", *bus, cwd=tmp_path)),
        _running(start("tail", "done", "--limit", "1", *bus, cwd=tmp_path)) as tail,
    ):
        wait_until(lambda: len(_channels(nsqd, "done")) == 2)
        sent = json.loads(_go("send", _host(nsqd), "load", "one", "cron=2017-01-01T01"))
        shown, _ = tail.communicate(timeout=_LIMIT)
        (child,) = _go_reads(nsqd, "publish")

    done = json.loads(shown)
    assert {"started", "ended"} <= done.keys()
    assert {key: done[key] for key in sent if key != "meta"} == {key: sent[key] for key in sent if key != "meta"}
    assert (done["result"], done["meta"]) == ("complete", "cron=2017-01-01T01&rows=12")
    assert child["info"] == "one?rows=12"
    assert f"parent={sent['id']}" in child["meta"]


def test_our_cron_makes_tasks_for_go(nsqd: Nsqd, tmp_path: Path) -> None:
    """A cron rule with ``dialect = "go"`` makes tasks that a Go worker does."""
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\ncron = "* * * * * *"\ntype = "load"\ntask = "{yyyy}"\ndialect = "go"\n'
    )
    with (
        _go_worker(nsqd, "load"),
        _running(start("taskmaster", "cron", "rules.toml", "--bus", nsqd.url(), cwd=tmp_path)),
    ):
        (done,) = _go_reads(nsqd, "done")

    assert (done["type"], done["result"]) == ("load", "complete")
    assert "cron=" in done["meta"]


def test_our_worker_does_go_tasks(nsqd: Nsqd, tmp_path: Path) -> None:
    """A task of Go's producer is done by our worker, and Go decodes the done task with every field it sent."""
    with _running(start("worker", "hello-world", "--bus", nsqd.url(), cwd=tmp_path)):
        sent = json.loads(_go("send", _host(nsqd), "hello-world", "wörld & <co>", "workflow=w.toml&retry=1"))
        (done,) = _go_reads(nsqd, "done")

    assert {key: done[key] for key in sent} == sent
    assert done["result"] == "complete"
    assert {"msg", "started", "ended"} <= done.keys()


def test_the_quickstart_of_go(nsqd: Nsqd, tmp_path: Path) -> None:
    """What Go's quickstart taskmaster prints can be sent, is done, and is answered in its dialect."""
    printed = subprocess.run(
        [programs()[1], "-type", "hello-world", "-info", "world"], capture_output=True, timeout=_LIMIT, check=True
    ).stdout
    with _running(start("worker", "hello-world", "--bus", nsqd.url(), cwd=tmp_path)):
        sent = taskbus(
            "send", "--file", "-", "--wait", "--timeout", "30s", "--bus", nsqd.url(), cwd=tmp_path, stdin=printed
        )

    assert sent.code == 0, sent
    (done,) = sent.tasks
    assert {key: done[key] for key in json.loads(printed)} == json.loads(printed)
    assert "ended" in done
    assert "completed" not in done


def test_what_go_cannot_read_is_why_there_is_a_dialect(nsqd: Nsqd, tmp_path: Path) -> None:
    """Go refuses a task whose meta is an object, as ours is unless the Go dialect is asked for."""
    bus = ("--bus", nsqd.url())
    assert taskbus("send", "load", "one", "--meta", "k=v", *bus, cwd=tmp_path).code == 0
    with pytest.raises(AssertionError, match="cannot unmarshal object"):
        _go_reads(nsqd, "load")
    assert taskbus("send", "load", "one", "--meta", "k=v", "--dialect", "go", *bus, cwd=tmp_path).code == 0
    (task,) = _go_reads(nsqd, "load")
    assert (task["info"], task["meta"]) == ("one", "k=v")
