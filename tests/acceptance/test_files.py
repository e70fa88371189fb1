"""The files taskmaster as a real process: stopped, killed, its rules edited, on a folder and on an S3 server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.test_taskmasters import left, published
from tests.helpers import wait_until
from tests.taskbus_command import start, taskbus

RULES = """
[[rule]]
id = "load"
path = "in/**/*.json"
type = "load"
settle = "300ms"

[[rule]]
id = "together"
path = "in/**/*.json"
type = "together"
task = "{group}?n={count}"
settle = "300ms"
group_by = "directory"
count = 50
"""


@contextmanager
def running(folder: Path, *more: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The taskmaster at work in a folder, its log in the file ``log``, stopped in order at the end."""
    (folder / "in").mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        args = ("taskmaster", "files", "rules.toml", "--bus", "sqlite:work.db", "--log-format", "json", *more)
        process = start(*args, cwd=folder, env=env, stderr=log, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: '"event":"started"' in (folder / "log").read_text(), 60)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (folder / "log").read_text()


def waiting(folder: Path, topic: str = "load") -> int:
    return left(folder, topic, "reader") if (folder / "work.db").exists() else 0


def test_files_that_arrive_while_it_runs(tmp_path: Path) -> None:
    """Each is sent once, though its folder is new; after a restart only what came meanwhile is."""
    (tmp_path / "rules.toml").write_text(RULES)
    with running(tmp_path):
        for number in range(20):
            path = tmp_path / "in" / f"{number % 4}" / f"{number}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
        wait_until(lambda: waiting(tmp_path) == 20)
    (tmp_path / "in" / "late.json").write_text("{}")
    with running(tmp_path):
        wait_until(lambda: waiting(tmp_path) == 21)

    tasks = published(tmp_path, "load")
    assert Counter(Path(task.value).name for task in tasks) == dict.fromkeys(
        [*(f"{number}.json" for number in range(20)), "late.json"], 1
    )


def test_looking_without_watching(tmp_path: Path) -> None:
    """Where nothing tells of changes, looks find them."""
    (tmp_path / "rules.toml").write_text(RULES.replace("settle", 'watch = false\npoll = "200ms"\nsettle'))
    with running(tmp_path):
        (tmp_path / "in" / "x").mkdir()
        (tmp_path / "in" / "x" / "a.json").write_text("{}")
        wait_until(lambda: waiting(tmp_path) == 1)


def test_a_folder_that_comes_later(tmp_path: Path) -> None:
    """It is watched from then on, also when it was taken away and made anew."""
    (tmp_path / "rules.toml").write_text(RULES.replace("in/**", "in/later/**"))
    with running(tmp_path):
        for number in range(2):
            (tmp_path / "in" / "later").mkdir()
            (tmp_path / "in" / "later" / f"{number}.json").write_text("{}")
            wait_until(lambda number=number: waiting(tmp_path) == number + 1, 20)  # type: ignore[misc]
            shutil.rmtree(tmp_path / "in" / "later")


def test_a_file_that_is_written_slowly_is_taken_whole(tmp_path: Path) -> None:
    """While it grows it is not sent."""
    (tmp_path / "rules.toml").write_text(RULES.replace("300ms", "1s"))
    with running(tmp_path):
        path = tmp_path / "in" / "slow.json"
        grown = threading.Event()

        def write() -> None:
            with path.open("w") as file:
                for _ in range(20):
                    file.write("x" * 100)
                    file.flush()
                    grown.wait(0.1)

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            assert waiting(tmp_path) == 0
            writer.join(0.05)
        wait_until(lambda: waiting(tmp_path) == 1)


def test_rules_that_are_edited(tmp_path: Path) -> None:
    """New rules are taken whole or not at all; what was sent stays sent."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    with running(tmp_path) as process:
        (tmp_path / "in" / "a.json").write_text("{}")
        wait_until(lambda: waiting(tmp_path) == 1)
        rules.write_text(RULES.replace("settle", "setle", 1))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "rules-refused" in (tmp_path / "log").read_text())
        rules.write_text(RULES.replace("*.json", "*"))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "rules-reloaded" in (tmp_path / "log").read_text())
        (tmp_path / "in" / "b.csv").write_text("{}")
        wait_until(lambda: waiting(tmp_path) == 2)

    assert sorted(Path(task.value).name for task in published(tmp_path, "load")) == ["a.json", "b.csv"]


def test_dry_run(tmp_path: Path) -> None:
    """It prints what would be sent now, and leaves nothing behind; with a state, only what is new."""
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text("{}")
    run = taskbus("taskmaster", "files", "rules.toml", "--dry-run", cwd=tmp_path)
    assert [task["task"] for task in run.tasks] == [f"{tmp_path}/in/a.json"]
    assert "the group" in run.err
    assert "waits with 1 files" in run.err
    assert run.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "rules.toml"]

    with running(tmp_path):
        wait_until(lambda: waiting(tmp_path) == 1)
    (tmp_path / "in" / "b.json").write_text("{}")
    run = taskbus("taskmaster", "files", "rules.toml", "--dry-run", cwd=tmp_path)
    assert [task["task"] for task in run.tasks] == [f"{tmp_path}/in/b.json"]


def test_status(tmp_path: Path) -> None:
    """The status page tells of the rules and of what is in the way."""
    from urllib.request import urlopen

    (tmp_path / "rules.toml").write_text(RULES)
    with running(tmp_path, "--status-port", "0"):
        log = (tmp_path / "log").read_text()
        url = log.rpartition('"url":"')[2].partition('"')[0]
        (tmp_path / "in" / "a.json").write_text("{}")
        wait_until(lambda: json.load(urlopen(url))["sent"] == 1)
        found = json.load(urlopen(url))
        metrics = urlopen(url + "metrics").read().decode()
    assert found["rules"]["load"] == {"known": 1, "settling": 0, "groups_waiting": 0}
    assert found["rules"]["together"]["groups_waiting"] == 1
    assert 'taskbus_files_total{taskmaster="files"} 1.0' in metrics
    assert "taskbus_ready" in metrics


# What the clients themselves do is not ours to mend.
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")
def test_s3_as_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are sent as they come, and not again after a restart; a store that goes away is told of."""
    # moto keeps one set of buckets for the whole process: this one is of this test alone.
    import boto3
    from moto.server import ThreadedMotoServer

    env = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    env |= {"PYTHONWARNINGS": "default", "AWS_MAX_ATTEMPTS": "1"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    (tmp_path / "rules.toml").write_text(
        f'[[rule]]\npath = "s3://arrivals/in/**/*.json"\ntype = "load"\npoll = "200ms"\nendpoint = "http://{host}:{port}"\n'
    )
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="arrivals")
        client.put_object(Bucket="arrivals", Key="in/a.json", Body=b"1")
        with running(tmp_path, env=env):
            client.put_object(Bucket="arrivals", Key="in/x/b.json", Body=b"1")
            wait_until(lambda: waiting(tmp_path) == 2, 30)
        with running(tmp_path, env=env):
            client.put_object(Bucket="arrivals", Key="out/d.json", Body=b"1")
            client.put_object(Bucket="arrivals", Key="in/c.json", Body=b"1")
            wait_until(lambda: waiting(tmp_path) == 3, 30)
            server.stop()
            wait_until(lambda: "look-failed" in (tmp_path / "log").read_text(), 60)
    finally:
        server.stop()
    values = sorted(task.value for task in published(tmp_path, "load"))
    assert values == ["s3://arrivals/in/a.json", "s3://arrivals/in/c.json", "s3://arrivals/in/x/b.json"]
