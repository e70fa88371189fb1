"""What a rule asks of a done task: texts, some with ``*`` in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import translate

from task.outcome import Result
from task.task import Task

__all__ = ["ANY", "Match", "Texts"]

_GLOB = re.compile(r"[*?\[]")
#: Matches every text, but not a missing one.
ANY = "*"


class Texts:
    """One or several texts, any of which may match. ``*``, ``?`` and ``[…]`` in them stand for other characters."""

    __slots__ = ("_globs", "_plain", "given")

    def __init__(self, given: tuple[str, ...]) -> None:
        self.given = given
        self._plain = frozenset(given)
        globs = "|".join(f"(?:{translate(text)})" for text in given if _GLOB.search(text))
        self._globs = re.compile(globs) if globs else None

    @property
    def literal(self) -> bool:
        """Whether nothing but the texts themselves matches."""
        return self._globs is None

    def match(self, text: str | None) -> bool:
        """Whether ``text`` is one of these. A missing one is none."""
        if text is None:
            return False
        return text in self._plain or (self._globs is not None and self._globs.match(text) is not None)

    def __str__(self) -> str:
        return " or ".join(self.given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The done tasks a rule is for. What is None does not matter."""

    type: Texts | None = None
    job: Texts | None = None
    value: Texts | None = None
    results: frozenset[Result] = frozenset((Result.COMPLETE,))
    meta: Mapping[str, Texts]

    def produced_by(self, kind: str, job: str | None) -> bool:
        """Whether a task of this type and job may, done, be one of these."""
        return (self.type is None or self.type.match(kind)) and (self.job is None or self.job.match(job))

    def rest(self, task: Task, result: Result) -> bool:
        """Whether everything but the type matches."""
        if result not in self.results:
            return False
        if self.job is not None and not self.job.match(task.job):
            return False
        if self.value is not None and not self.value.match(task.value):
            return False
        return not self.meta or all(texts.match(task.meta.get(key)) for key, texts in self.meta.items())

    def __str__(self) -> str:
        said = [str(self.type) if self.type else "any type"]
        if self.job:
            said.append(f"job {self.job}")
        if self.value:
            said.append(f"value {self.value}")
        said += [f"meta {key} {'present' if texts.given == (ANY,) else texts}" for key, texts in self.meta.items()]
        results = " or ".join(result for result in Result if result in self.results)
        return f"{', '.join(said)} that ended with {results}"
