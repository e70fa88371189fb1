"""``for_each``: what a rule makes one child each of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from taskmasters.templates import COMMON, META, PARENT, TIME, Scope, Template

__all__ = ["MAX_ITEMS", "Items", "parse_items"]

#: The most children one rule makes of one done task.
MAX_ITEMS = 10_000
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_TOKENS = frozenset([*TIME, *COMMON, *META, *PARENT])


@dataclass(frozen=True, slots=True)
class Items:
    """A fixed list, or a template whose text is a list with commas."""

    text: str
    fixed: Sequence[str] = ()
    template: Template | None = None

    def of(self, scope: Scope) -> Sequence[str]:
        """The items for one parent.

        Raises:
            MissingValueError: from the template.
            ValueError: if there are more than :data:`MAX_ITEMS`.
        """
        if self.template is None:
            return self.fixed
        items = [item for piece in self.template.render(scope).split(",") if (item := piece.strip())]
        return _checked(items, len(items))


def parse_items(given: object) -> Items:
    """``["a", "b"]``, ``"1..5"`` (both ends included; ``01..12`` keeps its zeros) or ``"{meta:files}"``.

    Raises:
        ValueError: saying what is wrong.
    """
    if isinstance(given, list) and given and all(type(item) in (str, int) for item in given):
        return Items(f"{len(given)} items", tuple(map(str, _checked(given, len(given)))))
    if isinstance(given, str):
        if match := _RANGE.fullmatch(given):
            first, last = int(match[1]), int(match[2])
            if last < first:
                raise ValueError(f"{given!r} runs backwards")
            _checked((), last - first + 1)
            width = len(match[1]) if match[1].startswith("0") else 0
            return Items(given, tuple(str(number).zfill(width) for number in range(first, last + 1)))
        template = Template(given, _TOKENS)
        if not template.constant:
            return Items(given, template=template)
    raise ValueError('must be a list of texts, a range like "1..5", or a template like "{meta:files}"')


def _checked(items: Sequence[object], count: int) -> Sequence[str]:
    if count > MAX_ITEMS:
        raise ValueError(f"{count} items are more than the limit of {MAX_ITEMS}")
    return items  # type: ignore[return-value]
