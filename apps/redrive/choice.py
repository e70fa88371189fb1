"""Which dead letters are meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from apps.redrive.letters import Letter

__all__ = ["Choice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a letter must be like. All that is given must fit; of several texts for one thing, any.

    Texts may have ``*``, ``?`` and ``[…]`` in them. ``since`` and ``until`` bound the moment it became a dead letter;
    one that does not tell its moment is not within bounds.
    """

    codes: Collection[str] = ()
    reasons: Collection[str] = ()
    types: Collection[str] = ()
    jobs: Collection[str] = ()
    values: Collection[str] = ()
    ids: Collection[str] = ()
    meta: Sequence[tuple[str, str]] = ()
    since: datetime | None = None
    until: datetime | None = None

    def fits(self, letter: Letter) -> bool:
        """Whether it is one of those."""
        task = letter.task
        return (
            _any(self.codes, letter.code)
            and _any(self.reasons, letter.reason)
            and _any(self.types, letter.type)
            and _any(self.ids, letter.id)
            and _any(self.jobs, task.job if task else None)
            and _any(self.values, task.value if task else None)
            and all(task is not None and _any((wanted,), task.meta.get(key)) for key, wanted in self.meta)
            and (self.since is None or (letter.dead is not None and letter.dead >= self.since))
            and (self.until is None or (letter.dead is not None and letter.dead < self.until))
        )


def _any(patterns: Collection[str], text: str | None) -> bool:
    return not patterns or (text is not None and any(fnmatchcase(text, pattern) for pattern in patterns))
