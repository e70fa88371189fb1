"""A batch that a person stops with Ctrl-C, as a real process."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from tests.acceptance.support import pending, taken
from tests.helpers import wait_until
from tests.taskbus_command import start, taskbus

ARGS = ("taskmaster", "batch", "load", "--from", "2026-01-01", "--for", "49d", "--bus", "sqlite:work.db", "--execute")


def test_stopped_and_gone_on(tmp_path: Path) -> None:
    """It says what was sent and how to go on; gone on so, all tasks are there, each under one id."""
    url = f"sqlite:{tmp_path}/work.db"
    assert taken(url, "load") == []
    process = start(*ARGS, "--rate", "4", cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: pending(url, "load", "test").total >= 3, 60)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    err = stderr.decode()
    assert process.returncode not in (0, 2), err
    assert "Traceback" not in err
    said = re.search(r"(\d+) tasks were sent and confirmed\n.*with (--batch-id \w+ --skip (\d+))\n", err)
    assert said, err
    assert 3 <= int(said[1]) == int(said[3]) < 50
    done = taskbus(*ARGS, *said[2].split(), cwd=tmp_path)
    assert done.code == 0, done
    found = taken(url, "load")
    assert len({task["id"] for task in found}) == 50
    assert len({task["meta"]["cron"] for task in found}) == 50
