"""What a batch makes: one task for each moment and row, always the same for the same plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from task.errors import SettingsError
from task.task import Dialect, Task, derive_id
from task.times import format_time
from taskmasters.templates import COMMON, META, ROW, TIME, MissingValueError, Scope, Template
from taskmasters.workflow.definition import RESERVED, RUN_FROM, RUN_KEY, RUN_MOMENT
from taskmasters.zone import Zone

__all__ = ["META_TOKENS", "TASK_TOKENS", "Plan"]

#: What a template of a batch may use.
META_TOKENS = frozenset([*TIME, *COMMON, *ROW])
TASK_TOKENS = frozenset([*META_TOKENS, *META])
#: Meta keys that the batch sets: the moment, RFC 3339, and the id of the batch.
_CRON, _BATCH = "cron", "batch"
#: Those that a column of a row cannot be.
_TAKEN = frozenset([_CRON, _BATCH, *RESERVED, RUN_KEY, RUN_MOMENT, RUN_FROM])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One batch. ``moments`` and ``rows`` give the same each time they are called; None for a batch without any.

    ``offset``, in seconds, is added to the moment that the templates show. ``runs``: the tasks ask for runs of a
    workflow, which begin with the job or step ``phase`` if there is one. ``row_meta``: columns of a row become meta.
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
    runs: bool = False
    phase: str | None = None
    row_meta: bool = False
    dialect: Dialect = Dialect.TASKBUS

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
        # Of the same batch id, the tasks of two types are not the same.
        kind = self.type if self.job is None else f"{self.type}:{self.job}"
        scope = Scope(derive_id("batch", self.id, kind, nominal, str(number)), shown, row=row)
        meta = self._columns(row) if self.runs or self.row_meta else {}
        if self.runs:
            meta |= self._asking(shown, nominal, number)
        meta |= {key: template.render(scope) for key, template in self.meta.items()}
        if nominal:
            meta[_CRON] = nominal
        meta[_BATCH] = self.id
        scope.meta = meta
        return Task(self.type, self.task.render(scope), job=self.job, id=scope.id, meta=meta, dialect=self.dialect)

    def _columns(self, row: Mapping[str, str]) -> dict[str, str]:
        for key in row:
            if key in _TAKEN:
                raise SettingsError(f"the column {key!r} would be the meta that a batch sets: name it otherwise")
        return dict(row)

    def _asking(self, shown: datetime | None, nominal: str, number: int) -> dict[str, str]:
        """What the run of a workflow is to be. Other workflows' for the same moment and row have the same key."""
        meta = {RUN_KEY: " ".join([self.id, nominal or "-", str(number)])}
        if shown is not None and self.offset:
            meta[RUN_MOMENT] = format_time(shown)
        if self.phase is not None:
            meta[RUN_FROM] = self.phase
        return meta
