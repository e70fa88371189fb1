"""What a SQLite file tells: see :mod:`bus.facts`. https://www.sqlite.org/useovernet.html

``lease``, ``option.synchronous``, ``file.*`` of :mod:`bus.mounts`, and ``file.journal``: the journal mode.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from urllib.parse import quote

from bus.facts import Fact, unknown
from bus.mounts import file_facts
from bus.sql.options import SqliteOptions

__all__ = ["diagnose"]


async def diagnose(path: str, options: SqliteOptions) -> list[Fact]:
    """The facts of one file, which is not made if it is missing."""
    return [
        Fact("lease", options.lease, path),
        Fact("option.synchronous", options.synchronous, path),
        *await asyncio.to_thread(_look, path),
    ]


def _look(path: str) -> list[Fact]:
    facts = file_facts(path)
    if not facts[0].value:
        return facts
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5.0)) as database:
            (mode,) = database.execute("pragma journal_mode").fetchone()
        facts.append(Fact("file.journal", str(mode), path))
    except sqlite3.Error as error:
        facts.append(unknown("file.journal", path, error))
    return facts
