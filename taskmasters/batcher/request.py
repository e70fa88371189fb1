"""What the value of a task says that asks for a batch: options of ``batch`` as parameters, the Go toolkit's too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, unquote

from bus.url import nearest
from task.errors import SettingsError
from task.task import Task
from taskmasters.batch.asked import Asked, AskedError, make_plan
from taskmasters.batch.moments import Step
from taskmasters.batch.plan import Plan
from taskmasters.batch.rows import read_rows
from taskmasters.cron.rules import CronRule, load_cron_rules
from taskmasters.workflow.definition import Workflow
from taskmasters.workflow.load import load_workflows

__all__ = ["Places", "Request", "read_request"]

Found = TypeVar("Found")

#: Parameter → the field of :class:`Asked`.
_FIELDS = {
    "type": "type",
    "task": "task",
    "job": "job",
    "topic": "topic",
    "phase": "phase",
    "from": "start",
    "to": "end",
    "for": "length",
    "by": "by",
    "every": "every",
    "hours": "hours",
    "except-hours": "except_hours",
    "timezone": "timezone",
}
_OTHERS = ("meta", "rule", "workflow", "rows", "batch-id", "rate", "cancel")
#: What the Go toolkit's batcher calls things.
_GO = {"task-type": "type", "on-hours": "hours", "off-hours": "except-hours"}
_GO_ONLY = ("every-x-hours", "daily")
#: Between the entries of a map, but not before the filter of a placeholder.
_BAR = re.compile(r"\|(?![^{]*\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where requests may take from: a file of cron rules, workflows, and the folder of the files of rows."""

    rules: str | None = None
    workflows: str | None = None
    rows: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One batch that is asked for. ``rate``: tasks a second. ``file``: where its rows are."""

    plan: Plan
    rate: float | None
    file: Path | None

    @property
    def signature(self) -> str:
        """Changes with the file of rows. Raises SettingsError if that cannot be looked at."""
        if self.file is None:
            return ""
        try:
            found = self.file.stat()
        except OSError as error:
            raise SettingsError(f"{self.file.name}: cannot be read: {error.strerror}") from None
        return f"{found.st_size} {found.st_mtime_ns}"


def read_request(task: Task, id: str, now: float, places: Places) -> Request | str:
    """The batch that ``task`` asks for, at the moment ``now``; or the id of the one it asks to cancel.

    The value is ``?type=load&from=…&to=…``, its fragment or parameter ``task`` the template, its path a file of rows.

    Raises:
        TaskError: saying which parameter is wrong.
    """
    given, metas = _parameters(task.value)
    if "cancel" in given:
        if len(given) > 1 or metas:
            raise AskedError("cancel stands alone")
        return given["cancel"]
    go = "task-type" in given
    given = {_GO.get(name, name): value for name, value in given.items()}
    _read_steps(given, go)
    rows = given.pop("rows", None)
    rate = _rate(given.pop("rate")) if "rate" in given else None
    rule = _rule(given.pop("rule"), places) if "rule" in given else None
    flow = _workflow(given.pop("workflow"), places) if "workflow" in given else None
    file = None if rows is None else _inside(rows, places)
    asked = Asked(
        id=given.pop("batch-id", id),
        meta=metas,
        rule=rule,
        workflow=flow,
        rows=None if file is None else lambda: read_rows(str(file)),
        row_meta=go,
        **{_FIELDS[name]: value for name, value in given.items()},
    )
    return Request(make_plan(asked, now, lambda name: name, task.dialect), rate, file)


def _parameters(value: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The parameters that may stand once, and the entries of meta."""
    rest, mark, template = value.partition("#")
    path, _, query = rest.partition("?")
    known = [*_FIELDS, *_OTHERS, *_GO, *_GO_ONLY]
    found: dict[str, str] = {}
    metas: list[tuple[str, str]] = []
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise AskedError(f"the value is no query: {error}") from None
    if path:
        pairs.append(("rows", unquote(path)))
    if mark:
        pairs.append(("task", template))
    for name, text in pairs:
        if name not in known:
            raise AskedError(f"unknown parameter {name!r}{nearest(name, known)}")
        if name == "meta":
            metas += [_entry(part) for part in _BAR.split(text)]
        elif _GO.get(name, name) in {_GO.get(one, one) for one in found}:
            raise AskedError(f"{name} is said twice")
        else:
            found[name] = text
    return found, metas


def _entry(text: str) -> tuple[str, str]:
    key, colon, template = text.partition(":")
    if not key or not colon:
        raise AskedError(f"meta: {text!r} is not KEY:TEMPLATE")
    return key, template


def _read_steps(given: dict[str, str], go: bool) -> None:
    """The Go toolkit's ways to name a step, and its default."""
    daily, hours = given.pop("daily", None), given.pop("every-x-hours", None)
    if sum(one is not None for one in (daily, hours, given.get("by"))) > 1:
        raise AskedError("daily, every-x-hours and by say the same: give one of them")
    if daily is not None and daily not in ("", "true", "false"):
        raise AskedError(f"daily: {daily!r} is neither true nor false")
    if daily in ("", "true"):
        given["by"] = Step.DAY
    elif hours is not None:
        # There it may stand without a number, which is every hour.
        given["by"], given["every"] = Step.HOUR, hours or "1"
    elif go and "from" in given:
        given.setdefault("by", Step.HOUR)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1e6:
        raise AskedError(f"rate: {text!r} is no number of tasks a second")
    return rate


def _rule(name: str, places: Places) -> CronRule:
    if places.rules is None:
        raise AskedError("rule: this batcher was started without --rules")
    return _named("rule", name, {rule.id: rule for rule in load_cron_rules(places.rules)})


def _workflow(name: str, places: Places) -> Workflow:
    if places.workflows is None:
        raise AskedError("workflow: this batcher was started without --workflows")
    return _named("workflow", name, {one.id: one for one in load_workflows(places.workflows)})


def _named(what: str, name: str, found: Mapping[str, Found]) -> Found:
    if name not in found:
        raise AskedError(f"{what}: there is no {name!r}{nearest(name, sorted(found))}")
    return found[name]


def _inside(name: str, places: Places) -> Path:
    """The file ``name`` in the folder of rows, and in no other."""
    if places.rows is None:
        raise AskedError("rows: this batcher was started without --rows-folder")
    folder = Path(places.rows).resolve()
    try:
        found = (folder / name).resolve()
    except (OSError, ValueError):
        found = folder.parent
    if not found.is_relative_to(folder):
        raise AskedError(f"rows: {name!r} is not in the folder of rows")
    return found
