"""``make brokers`` and ``make brokers-stop``: every broker at hand, started natively and left running.

The servers are those of the tests. Each listens on loopback, on its usual port if that is free and on any other if not.
What was started is kept in ``.brokers/``: data, logs, and the processes that ``down`` may end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers.nats import NatsServer
from tests.servers.nsq import Lookupd, Nsqd
from tests.servers.process import free_port
from tests.servers.pubsub import PubsubEmulator

__all__ = ["BROKERS", "Started", "down", "main", "up"]

FOLDER = Path(".brokers")
#: Seconds a server has to end by itself.
_PATIENCE = 30.0


class Started(NamedTuple):
    """A broker that runs: its name, the URL for ``--bus``, and its processes."""

    name: str
    url: str
    pids: list[int]


def up(folder: Path = FOLDER, names: Sequence[str] = ()) -> list[Started]:
    """Start every broker that can be had here, or those of ``names``, and say on stderr why another cannot."""
    folder.mkdir(exist_ok=True)
    started: list[Started] = []
    for name in names or BROKERS:
        place = folder / name
        place.mkdir(exist_ok=True)
        try:
            url, pids = BROKERS[name](place)
        except (pytest.skip.Exception, pytest.fail.Exception, AssertionError, RuntimeError, OSError) as trouble:
            print(f"# {name}: not started: {trouble}", file=sys.stderr)
            continue
        started.append(Started(name, url, pids))
        # After each, so that an interrupted start can be stopped too.
        _write(folder, started)
    return started


def down(folder: Path = FOLDER) -> list[str]:
    """End what ``up`` started in ``folder``, and nothing else. Returns the names."""
    ended = []
    for broker in reversed(_read(folder)):
        for pid, since in reversed(broker["processes"]):
            _end(pid, since)
        ended.append(broker["name"])
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def main() -> int:
    """``python -m tests.servers.brokers up [NAME…]`` or ``down``."""
    what, *names = sys.argv[1:] or [""]
    if what == "down" and not names:
        print(f"stopped: {', '.join(down()) or 'nothing was running'}")
        return 0
    if what != "up" or not set(names) <= BROKERS.keys():
        print(f"usage: python -m tests.servers.brokers up [{'|'.join(BROKERS)}]… | down", file=sys.stderr)
        return 2
    os.environ["TASKBUS_SERVERS"] = "1"
    if not _running():
        # What was started must outlive this command and the terminal it was typed in.
        if os.getpid() != os.getpgid(0):
            os.setsid()
        up(names=names)
    found = _read(FOLDER)
    for broker in found:
        print(f"export TASKBUS_{broker['name'].upper()}_URL='{broker['url']}'")
    if found:
        print(f'# for example: taskbus worker hello-world --bus "$TASKBUS_{found[0]["name"].upper()}_URL"')
    return 0 if found else 1


def _running() -> bool:
    return any(_since(pid) == since for broker in _read(FOLDER) for pid, since in broker["processes"])


def _nats(folder: Path) -> tuple[str, list[int]]:
    server = NatsServer(folder, port=free_port(4222))
    server.start()
    return server.url, [server.pid]


def _nsq(folder: Path) -> tuple[str, list[int]]:
    lookups = [Lookupd(folder, tcp=free_port(port), http=free_port(port + 1)) for port in (4160, 4170)]
    for lookup in lookups:
        lookup.start()
    addresses = [f"-lookupd-tcp-address=127.0.0.1:{lookup.tcp}" for lookup in lookups]
    nsqd = Nsqd(folder, "-max-msg-timeout=2h", *addresses, tcp=free_port(4150), http=free_port(4151))
    nsqd.start()
    return nsqd.url(max_lease="2h"), [*(lookup.pid for lookup in lookups), nsqd.pid]


def _pubsub(folder: Path) -> tuple[str, list[int]]:
    emulator = PubsubEmulator(folder, port=free_port(8085))
    emulator.start()
    return emulator.url, [emulator.pid]


#: How each is started: the folder for its data → its URL, and its processes.
BROKERS: dict[str, Callable[[Path], tuple[str, list[int]]]] = {
    "nats": _nats,
    "nsq": _nsq,
    "pubsub": _pubsub,
}


def _write(folder: Path, started: list[Started]) -> None:
    known = [
        {"name": name, "url": url, "processes": [(pid, _since(pid)) for pid in pids]} for name, url, pids in started
    ]
    (folder / "brokers.json").write_text(json.dumps(known, indent=1))


def _read(folder: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads((folder / "brokers.json").read_text())
        return found
    except FileNotFoundError:
        return []


def _since(pid: int) -> str:
    """When the process began, in ticks since the machine did: with its number, its identity. Empty if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        # A zombie has ended; only its parent has not looked yet.
        return "" if state == "Z" else fields[18]
    return ""


def _end(pid: int, since: str) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _PATIENCE
        if _since(pid) == since:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        while _alive(pid, since):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _alive(pid: int, since: str) -> bool:
    return bool(since) and _since(pid) == since


if __name__ == "__main__":
    sys.exit(main())
