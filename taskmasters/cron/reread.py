"""Cron rules that are read again while others fire.

A long file is read and checked by a process of its own: that takes seconds, in which a thread of this one would hold up
what comes due. It tells what each rule says, and the rules are made of that between the ticks. One that says what it
said before is not made again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from hashlib import blake2b
from typing import Any

import orjson

from task.document import Document
from task.errors import SettingsError, TaskError
from taskmasters.cron.rules import CronRule, read_cron_rule
from taskmasters.reload import read_beside
from taskmasters.rules import Problems, RuleTable, load_rules

__all__ = ["CronReader"]

#: Bytes of the longest file that a thread reads: it takes a tenth of a second.
_SHORT = 1 << 18
#: Bytes read of the other process at a time.
_CHUNK = 1 << 16
#: Seconds for which rules are made, and for which everything else goes on, in turns.
_WORK, _REST = 0.0005, 0.0005
#: How much lower than ours the priority of the other process is.
_NICE = 10
#: Its last line.
_END = b"null"


class CronReader:
    """Reads rule files, the same one again and again."""

    def __init__(self) -> None:
        #: The rules read last, by what they say.
        self._made: dict[bytes, CronRule] = {}

    def load(self, path: str) -> list[CronRule]:
        """The rules of a file. Raises SettingsError naming every mistake."""
        made: dict[bytes, CronRule] = {}

        def read(table: RuleTable) -> CronRule:
            rule = read_cron_rule(table)
            # What cannot be written as JSON is a mistake, and told as such.
            with suppress(orjson.JSONEncodeError):
                made[_said(orjson.dumps(table.data))] = rule
            return rule

        rules = load_rules(path, read)
        self._made = made
        return rules

    async def again(self, path: str) -> list[CronRule]:
        """The same, while other things go on.

        Raises:
            SettingsError: naming every mistake.
            TaskError: if the process that reads it is killed.
        """
        return await read_beside(self.load, path) if _is_short(path) else await self._beside(path)

    async def _beside(self, path: str) -> list[CronRule]:
        rules: list[CronRule] = []
        made: dict[bytes, CronRule] = {}
        problems = Problems(Document(path, {}, dict))
        until = time.perf_counter() + _WORK
        async with aclosing(_lines(path)) as lines:
            async for line in lines:
                said = _said(line)
                rule = self._made.get(said)
                if rule is None:
                    rule = read_cron_rule(RuleTable(orjson.loads(line), ("rule", len(rules)), problems))
                made[said] = rule
                rules.append(rule)
                if time.perf_counter() > until:
                    await asyncio.sleep(_REST)
                    until = time.perf_counter() + _WORK
        problems.check()
        self._made = made
        return rules


def _is_short(path: str) -> bool:
    try:
        return os.stat(path).st_size <= _SHORT
    except OSError:
        return True  # To read it tells why it cannot be read.


def _said(line: bytes) -> bytes:
    return blake2b(line, digest_size=16).digest()


async def _lines(path: str) -> AsyncGenerator[bytes, None]:
    """What each rule says, as the other process tells it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __spec__.name, path),
        start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        rest = b""
        while process.stdout is not None and (chunk := await process.stdout.read(_CHUNK)):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    yield line
                elif line == _END:
                    return
                else:
                    raise SettingsError(orjson.loads(line))
        raise TaskError(f"{path}: the process that reads it ended too early, with code {await process.wait()}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _tell(path: str) -> None:
    """Write what each rule of a file says, a JSON object a line, then null; or a text that tells what is wrong."""
    os.nice(_NICE)
    tables: list[Mapping[str, Any]] = []

    def read(table: RuleTable) -> CronRule:
        tables.append(table.data)
        return read_cron_rule(table)

    try:
        load_rules(path, read)
    except SettingsError as error:
        sys.stdout.buffer.write(orjson.dumps(str(error)) + b"\n")
        return
    for table in tables:
        sys.stdout.buffer.write(orjson.dumps(table) + b"\n")
    sys.stdout.buffer.write(_END + b"\n")


if __name__ == "__main__":
    _tell(sys.argv[1])
