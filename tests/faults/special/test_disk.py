"""The disk is full under whoever writes, and then there is room again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.support import Odd, tmpfs
from tests.faults.special.sender import Sender
from tests.faults.special.stage import collect, need_faults, stage
from tests.helpers import wait_until

pytestmark = pytest.mark.timeout(300)
#: MiB of the disk that each bus works on. The log of sqlite alone grows to 8 before it is used anew.
_DISKS = {"sqlite": 48, "file": 8, "nats": 32, "nsq": 16, "kafka": 64}
_SHORT = ("sqlite",)
#: Servers that write no more once they could not, until they are started again, and tell nobody what is wrong.
_GIVE_UP = ("nats", "kafka")


def _fill(disk: Path) -> Path:
    """Leave no room at all; what is in the way."""
    ballast = disk / "ballast"
    for size in (1024**2, 4096):
        try:
            with ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * size)
        except OSError:
            continue
    return ballast


@pytest.mark.slow
@pytest.mark.parametrize("name", _DISKS)
def test_a_disk_that_is_full_for_a_while(name: str, tmp_path: Path) -> None:
    """Under a worker, a sender and their bus: nothing accepted is lost, and both go on when the bus has room again."""
    if name not in _SHORT:
        need_faults(f"on {name}, part of the long form of the fault suite")
    (tmp_path / "worker").mkdir()
    odd = Odd(tmp_path / "worker")
    more = ("-mem-queue-size=0",) if name == "nsq" else ()
    with (
        tmpfs(tmp_path / "disk", f"size={_DISKS[name]}m") as disk,
        stage(name, disk, *more) as scene,
        odd.running("--bus", scene.url, "--log-format", "json") as worker,
        Sender(scene.url, size=2000) as sender,
    ):
        wait_until(lambda: '"event":"started"' in odd.log, 30)
        sender.wait_for(50)
        ballast = _fill(disk)
        told = sender.wait_for_error()
        ballast.unlink()
        if scene.server is not None and name in _GIVE_UP:
            scene.server.restart()
        sender.wait_for(50)
        sender.stop()
        done = collect(scene.url, "done", len(sender.accepted), quiet=2)
        worker.terminate()

    assert odd.code == 0
    reported = {task["id"] for task in done}
    print(f"{name}: {len(sender.accepted)} accepted, {len(done) - len(reported)} reported twice; told: {told}")
    assert set(sender.accepted) <= reported
    if scene.server is None:
        assert str(disk) in told
        assert "make room and it goes on" in told
