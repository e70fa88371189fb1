"""Long files of cron rules, read again by a process of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from task.errors import SettingsError, TaskError
from taskmasters.cron import reread
from taskmasters.cron.reread import CronReader
from taskmasters.reload import RuleFile
from tests.helpers import await_until

_RULE = """
[[rule]]
id = "r{0}"
cron = "{1} * * * *"
type = "t"
task = "s3://b/{{yyyy}}?n={0}"
meta = {{ day = "{{dd}}", said = "ü\\u0000\\n" }}
jitter = "1m"
window = 3600.5
enabled = {2}
"""


def _write(path: Path, changed: int = -1, count: int = 40) -> None:
    texts = [_RULE.format(n, 59 if n == changed else n, "false" if n % 7 == 0 else "true") for n in range(count)]
    path.write_text("\n".join(texts))


@pytest.fixture(autouse=True)
def _long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a long one."""
    monkeypatch.setattr(reread, "_SHORT", 0)


def test_what_is_read_beside_is_what_is_read(tmp_path: Path) -> None:
    """The other process's account makes the same rules; those that say what they said before are not made again."""
    path = tmp_path / "rules.toml"
    _write(path)
    reader = CronReader()
    first = reader.load(str(path))
    _write(path, changed=5, count=41)
    second = asyncio.run(reader.again(str(path)))
    fresh = CronReader().load(str(path))

    assert [rule.id for rule in second] == [rule.id for rule in fresh]
    for one, other in zip(second, fresh, strict=True):
        assert (one.enabled, one.jitter, one.window, one.schedule.text) == (
            other.enabled,
            other.jitter,
            other.window,
            other.schedule.text,
        )
        assert one.make(1767225600, 0.0) == other.make(1767225600, 0.0)
    assert [one is other for one, other in zip(first, second, strict=False)] == [n != 5 for n in range(40)]
    third = asyncio.run(reader.again(str(path)))
    assert all(one is other for one, other in zip(second, third, strict=True))


def test_a_yaml_file(tmp_path: Path) -> None:
    """It makes no difference in which form a rule was written."""
    path = tmp_path / "rules.yaml"
    path.write_text("rule:\n  - {cron: '* * * * *', type: t, window: 90}\n")
    (rule,) = asyncio.run(CronReader().again(str(path)))
    assert (rule.type, rule.window) == ("t", 90.0)


@pytest.mark.parametrize("text", ["[[rule]]\ncron = '61 * * * *'\nids = 1\n", "[[rule]\n", "", "x = 2026-01-01\n"])
def test_mistakes_are_told_as_ever(tmp_path: Path, text: str) -> None:
    """All of them, with file, line and key; so is a file that is gone."""
    path = tmp_path / "rules.toml"
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(SettingsError) as expected:
            CronReader().load(str(path))
        with pytest.raises(SettingsError) as found:
            asyncio.run(CronReader().again(str(path)))
        assert str(found.value) == str(expected.value)
        path.unlink(missing_ok=True)


def test_a_process_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what it told is taken, the old rules stay, and the next change is read again."""
    path = tmp_path / "rules.toml"
    _write(path)
    started = asyncio.create_subprocess_exec
    kill = True

    async def start(*args: str, **options: object) -> asyncio.subprocess.Process:
        process: asyncio.subprocess.Process = await started(*args, **options)  # type: ignore[arg-type]
        if kill:
            os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)

    async def main() -> None:
        nonlocal kill
        reader = CronReader()
        file = RuleFile(str(path), reader.load, reader.again)
        file.interval = 0.01
        rules = file.rules
        with pytest.raises(TaskError, match=r"ended too early, with code -9"):
            await reader.again(str(path))
        async with asyncio.timeout(60), file.watched(lambda rules: None):
            _write(path, changed=3)
            await await_until(lambda: "ended too early" in file.trouble)
            assert file.rules is rules
            kill = False
            _write(path, changed=4)
            await await_until(lambda: file.reloads == 1)
            assert file.rules[3] is rules[3]
            assert file.rules[4] is not rules[4]

    asyncio.run(main())


def test_who_gives_up_leaves_no_process(tmp_path: Path) -> None:
    """Cancelled in the midst, it ends the process that reads."""
    path = tmp_path / "rules.toml"
    _write(path, count=3000)
    others = _children()  # servers of other tests
    processes = set[int]()

    async def main() -> None:
        reading = asyncio.create_task(CronReader().again(str(path)))
        await await_until(lambda: bool(_children() - others))
        processes.update(_children() - others)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(main())
    assert processes
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]


def _children() -> set[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in text.split()}
