"""What a batch makes: one task for each moment and row, always the same for the same plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from task.task import Task, derive_id
from taskmasters.templates import COMMON, META, ROW, TIME, MissingValueError, Scope, Template
from taskmasters.zone import Zone

__all__ = ["META_TOKENS", "TASK_TOKENS", "Plan"]

#: What a template of a batch may use.
META_TOKENS = frozenset([*TIME, *COMMON, *ROW])
TASK_TOKENS = frozenset([*META_TOKENS, *META])
#: Meta keys that the batch sets: the moment, RFC 3339, and the id of the batch.
_CRON, _BATCH = "cron", "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One batch. ``moments`` and ``rows`` give the same each time they are called; None for a batch without any.

    ``offset``, in seconds, is added to the moment that the templates show.
    """

    id: str
    type: str
    job: str | None
    topic: str
    task: Template
    meta: Mapping[str, Template]
    zone: Zone
    offset: float
    moments: Callable[[], Iterable[int]] | None
    rows: Callable[[], Iterable[Mapping[str, str]]] | None

    def tasks(self) -> Iterator[Task]:
        """The tasks in order: all rows of the first moment, then those of the next.

        Raises:
            MissingValueError: a placeholder has no value.
            SettingsError: a row is wrong.
        """
        for moment in (None,) if self.moments is None else self.moments():
            for number, row in enumerate(({},) if self.rows is None else self.rows()):
                try:
                    yield self._make(moment, number, row)
                except MissingValueError as error:
                    place = "" if self.rows is None else f"row {number + 1}: "
                    hint = (
                        " (a batch without --from has no moment)"
                        if moment is None and "{row:" not in str(error)
                        else ""
                    )
                    raise MissingValueError(f"{place}{error}{hint}") from None

    def _make(self, moment: int | None, number: int, row: Mapping[str, str]) -> Task:
        nominal = "" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        shown = None if moment is None else datetime.fromtimestamp(moment + self.offset, self.zone.info)
        scope = Scope(derive_id("batch", self.id, nominal, str(number)), shown, row=row)
        meta = {key: template.render(scope) for key, template in self.meta.items()}
        if nominal:
            meta[_CRON] = nominal
        meta[_BATCH] = self.id
        scope.meta = meta
        return Task(self.type, self.task.render(scope), job=self.job, id=scope.id, meta=meta)
