"""The same applications on every broker, by another URL alone; and the command that starts the brokers for people."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import wait_until
from tests.servers import missing, need_servers
from tests.servers.brokers import BROKERS
from tests.taskbus_command import environment

_ROOT = Path(__file__).parents[2]


def brokers(folder: Path, *args: str) -> str:
    """What the command printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers.brokers", *args],
        cwd=folder,
        env=environment({"PYTHONPATH": str(_ROOT)}),
        capture_output=True,
        text=True,
        timeout=100,
    )
    if done.returncode:
        missing(done.stderr)
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for brokers, which do not outlive the test."""
    need_servers()
    yield tmp_path
    brokers(tmp_path, "down")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BROKERS))
def test_the_demo_runs_on_it(name: str, folder: Path) -> None:
    """Cron, two workers that share a topic, on-done and a worker of one's own: nothing lost, nothing done twice."""
    url = re.search(r"export TASKBUS_\w+_URL='(.+)'", brokers(folder, "up", name))
    assert url is not None

    done = subprocess.run(
        [sys.executable, "-m", "apps.demo", url[1]],
        cwd=_ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"made (\d+), done (\d+), chained (\d+), done (\d+), done twice 0, lost = 0", done.stdout)
    assert found is not None, done.stdout
    assert len(set(found.groups())) == 1


def test_only_what_was_started_is_stopped(folder: Path) -> None:
    """The command leaves servers running, tells so when it is called again, and stops these and nothing else."""
    told = brokers(folder, "up", "nats")
    assert brokers(folder, "up") == told
    state = folder / ".brokers" / "brokers.json"
    ((pid, _),) = json.loads(state.read_text())[0]["processes"]
    with subprocess.Popen(["sleep", "60"]) as bystander:
        # Somebody else has that number now.
        state.write_text(state.read_text().replace(str(pid), str(bystander.pid)))
        assert brokers(folder, "down") == "stopped: nats\n"
        assert bystander.poll() is None
        os.kill(pid, signal.SIGKILL)
        bystander.kill()
    brokers(folder, "up", "nats")
    ((pid, _),) = json.loads(state.read_text())[0]["processes"]
    assert brokers(folder, "down") == "stopped: nats\n"
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert brokers(folder, "down") == "stopped: nothing was running\n"
