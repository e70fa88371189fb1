"""The rules of the files taskmaster."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import translate
from types import MappingProxyType

from bus.units import format_duration, parse_duration
from bus.url import nearest
from task.codec import encode
from task.task import Task, derive_id
from task.times import format_time
from taskmasters.cron.schedule import Schedule, parse_schedule
from taskmasters.files.entry import Entry, name_of
from taskmasters.files.pathtime import path_time
from taskmasters.files.pattern import PathPattern
from taskmasters.files.source import SCHEMES
from taskmasters.on_done.patterns import Texts
from taskmasters.rules import Place, RuleTable, load_rules
from taskmasters.templates import COMMON, FILE, GROUP, META, TIME, Files, Scope, Template
from taskmasters.zone import Zone, find_zone

__all__ = ["Again", "FileRule", "Grouping", "Needs", "load_file_rules"]

#: Meta of the tasks: the path, the key of the group, the moment the path tells.
FILE_KEY, GROUP_KEY, CRON = "file", "group", "cron"
#: Names of files that are still being written, or are nobody's.
_TEMPORARY = (".*", "*.tmp", "*.temp", "*.part", "*.partial", "*.swp", "*~", "#*#")
#: Characters of the longest id.
ID_LENGTH = 200
_DAY = 86400.0
#: Seconds of the shortest time between complete looks.
_SHORTEST = 0.1
_EMPTY: Mapping[str, str | None] = MappingProxyType({})
_META_TOKENS = frozenset([*TIME, *COMMON, *FILE])
_TASK_TOKENS = frozenset([*_META_TOKENS, *META])
_KEY_TOKENS = frozenset([*TIME, *FILE])
_DIRECTORY = "directory"
_CONDITIONS = ("count", "quiet", "marker", "cron")


class Again(StrEnum):
    """Whether a path that was sent may be sent again."""

    CHANGED = "changed"  #: when the file was changed
    NEVER = "never"


class Needs(StrEnum):
    """How many of the conditions of a group must hold."""

    ANY = "any"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Which files go together, and when. ``quiet`` is seconds; None is a condition that was not given."""

    key: Template
    count: int | None
    quiet: float | None
    marker: str | None
    schedule: Schedule | None
    needs: Needs

    def holds(self, count: int, first: float, last: float, marked: bool, now: float) -> bool:
        """Whether a group of ``count`` files, that arrived from ``first`` to ``last``, is to be sent."""
        met = [now >= moment for moment in self._moments(first, last)]
        if self.count is not None:
            met.append(count >= self.count)
        if self.marker is not None:
            met.append(marked)
        return any(met) if self.needs is Needs.ANY else all(met)

    def wake(self, first: float, last: float, now: float) -> float | None:
        """The next moment that may change that by itself."""
        return min((moment for moment in self._moments(first, last) if moment > now), default=None)

    def _moments(self, first: float, last: float) -> list[float]:
        moments = [] if self.quiet is None else [last + self.quiet]
        if self.schedule is not None:
            # The instant after the first arrival: one that passes while nobody runs is made up for.
            instant = self.schedule.next(int(first))
            moments.append(float("inf") if instant is None else instant)
        return moments


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRule:
    """One rule. ``lookback``, ``settle`` and ``offset`` are seconds."""

    id: str
    pattern: PathPattern
    exclude: tuple[re.Pattern[str], ...]
    temporary: Texts | None
    match: re.Pattern[str] | None
    lookback: float | None
    settle: float
    again: Again
    existing: bool
    #: Seconds between complete looks; None: as the taskmaster thinks fit.
    poll: float | None
    watch: bool
    endpoint: str | None
    anonymous: bool
    grouping: Grouping | None
    type: str
    task: Template
    job: str | None
    topic: str
    meta: Mapping[str, Template]
    zone: Zone
    offset: float
    enabled: bool
    place: Place

    def wants(self, entry: Entry, now: float) -> bool:
        """Whether a file is one of the rule's."""
        name = name_of(entry.path)
        if self.temporary is not None and self.temporary.match(name):
            return False
        found = self.pattern.match(entry.path)
        if found is None or not self.pattern.in_window(found, now):
            return False
        if self.lookback is not None and not self.pattern.dated and entry.mtime < now - self.lookback:
            return False
        if any(exclude.fullmatch(entry.path) for exclude in self.exclude):
            return False
        return self.match is None or self.match.search(entry.path) is not None

    def is_marker(self, path: str) -> bool:
        """Whether it is the marker of a group."""
        marker = self.grouping.marker if self.grouping else None
        return (
            marker is not None and name_of(path) == marker and self.pattern.beside(marker).fullmatch(path) is not None
        )

    def group_of(self, entry: Entry) -> str:
        """Key of the group a file belongs to; empty if the rule has none. Raises MissingValueError."""
        return "" if self.grouping is None else self.grouping.key.render(self._scope("", [entry], ""))

    def task_id(self, entry: Entry) -> str:
        """Id of the task for one file by itself: another for each version of it."""
        return derive_id("file", self.id, entry.path, entry.version)

    def group_id(self, group: str, entries: list[Entry]) -> str:
        """Id of the task for files that go together."""
        versions = [part for entry in entries for part in (entry.path, entry.version)]
        return derive_id("files", self.id, group, *versions)

    def make(self, id: str, entries: list[Entry], group: str, created: float) -> bytes:
        """The task for these files, in the order of their paths. The same but for ``created`` each time.

        Raises:
            MissingValueError: a placeholder has no value.
        """
        scope = self._scope(id, entries, group)
        meta = {key: template.render(scope) for key, template in self.meta.items()}
        if self.grouping is None:
            meta[FILE_KEY] = entries[0].path
        else:
            meta[GROUP_KEY] = group
        if scope.when is not None:
            meta[CRON] = format_time(scope.when - timedelta(seconds=self.offset)).replace(".000Z", "Z")
        scope.meta = meta
        moment = datetime.fromtimestamp(created, UTC)
        value = self.task.render(scope)
        return encode(Task(self.type, value, job=self.job, created=moment, id=id, meta=meta))

    def _scope(self, id: str, entries: list[Entry], group: str) -> Scope:
        first = entries[0]
        found = self.pattern.match(first.path)
        when = self.pattern.moment(found) if found else None
        when = path_time(first.path, self.zone) if when is None else when
        if when is not None and self.offset:
            when = (when.astimezone(UTC) + timedelta(seconds=self.offset)).astimezone(self.zone.info)
        named = self.match.search(first.path) if self.match else None
        files = Files(
            first.path,
            sum(entry.size for entry in entries),
            datetime.fromtimestamp(first.mtime, self.zone.info),
            named.groupdict() if named else _EMPTY,
            group,
            [entry.path for entry in entries],
        )
        return Scope(id, when, files=files)


def load_file_rules(path: str) -> list[FileRule]:
    """The rules of a file. Raises SettingsError naming every mistake."""
    return load_rules(path, _read)


def _read(table: RuleTable) -> FileRule:
    kind = table.required("type")
    job = table.text("job")
    zone = table.read("timezone", find_zone, find_zone("UTC"))
    lookback = table.duration("lookback", 0.0) if "lookback" in table else None
    pattern = _pattern(table, zone, lookback)
    grouping = _grouping(table, zone)
    meta_tokens = _META_TOKENS if grouping is None else _META_TOKENS | GROUP.keys()
    task_tokens = _TASK_TOKENS if grouping is None else _TASK_TOKENS | GROUP.keys()
    meta = table.table("meta")
    temporary = table.texts("temporary", empty=True)
    names = _TEMPORARY if temporary is None else temporary
    rule = FileRule(
        id=table.text("id") or (f"{kind}:{job}" if job else kind),
        pattern=pattern,
        exclude=tuple(_exclude(text, pattern) for text in table.texts("exclude", empty=True) or ()),
        temporary=Texts(names) if names else None,
        match=table.read("match", _regex, None),
        lookback=lookback,
        settle=table.duration("settle", 0.0 if pattern.scheme else 2.0),
        again=Again(table.word("again", list(Again), Again.CHANGED)),
        existing=table.flag("existing", True),
        poll=_poll(table),
        watch=table.flag("watch", True) and not pattern.scheme,
        endpoint=_endpoint(table, pattern.scheme),
        anonymous=table.flag("anonymous", False),
        grouping=grouping,
        type=kind,
        task=table.template("task", task_tokens, "{group}" if grouping else "{file}", uri=True),
        job=job,
        topic=table.topic(kind),
        meta=meta.templates(meta_tokens),
        zone=zone,
        offset=table.duration("offset", 0.0, negative=True),
        enabled=table.flag("enabled", True),
        place=table.place,
    )
    if len(rule.id) > ID_LENGTH:
        table.wrong("id" if "id" in table else "type", f"the rule's id is longer than {ID_LENGTH} characters")
    reserved = (FILE_KEY if grouping is None else GROUP_KEY, CRON)
    for key in reserved:
        if key in meta:
            meta.wrong(key, "is set by the taskmaster: choose another key")
    for key in sorted(rule.task.meta_keys - {*rule.meta, *reserved}):
        table.wrong("task", f"{{meta:{key}}}: the rule's meta has no {key!r}")
    return rule


def _pattern(table: RuleTable, zone: Zone, lookback: float | None) -> PathPattern:
    fallback = PathPattern("/nothing/*", zone, 0.0)
    if not table.required("path"):
        return fallback
    window = _DAY if lookback is None else lookback
    return table.read("path", lambda text: PathPattern(_absolute(text), zone, window), fallback)


def _absolute(text: str) -> str:
    scheme, sign, rest = text.partition("://")
    if not sign:
        return os.path.abspath(text) + ("/" if text.endswith("/") else "")
    scheme = {"gcs": "gs", "s3a": "s3"}.get(scheme.lower(), scheme.lower())
    if scheme == "file":
        return os.path.abspath(rest)
    if scheme not in SCHEMES:
        raise ValueError(f"files cannot be looked for with {scheme}://{nearest(scheme, [*SCHEMES, 'file'])}")
    bucket, slash, _ = rest.partition("/")
    if not slash or not re.fullmatch(r"[\w.-]+", bucket):
        raise ValueError(f"write {scheme}://BUCKET/PATH, with a bucket that is a plain name")
    return f"{scheme}://{rest}"


def _exclude(text: str, pattern: PathPattern) -> re.Pattern[str]:
    """What to leave out: names if it has no slash, else whole paths, in which ``*`` stands for slashes too."""
    if "/" not in text:
        return re.compile(f"(?s:.*/)?{translate(text)}")
    absolute = text if "://" in text or text.startswith(("/", "*")) else os.path.abspath(text)
    return re.compile(translate(absolute))


def _regex(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


def _poll(table: RuleTable) -> float | None:
    if "poll" not in table:
        return None
    seconds = table.duration("poll", 1.0)
    if seconds < _SHORTEST:
        table.wrong("poll", f"must be at least {format_duration(_SHORTEST)}")
    return seconds


def _endpoint(table: RuleTable, scheme: str) -> str | None:
    def read(text: str) -> str:
        if not re.fullmatch(r"https?://[^/@\s]+(/[^@\s]*)?", text):
            raise ValueError("write http://HOST:PORT or https://HOST; credentials come from the environment")
        return text

    endpoint = table.read("endpoint", read, "")
    if endpoint and scheme not in ("s3", "gs"):
        table.wrong("endpoint", "means nothing for this path: it is for s3:// and gs://")
    return endpoint or None


def _grouping(table: RuleTable, zone: Zone) -> Grouping | None:
    given = [name for name in _CONDITIONS if name in table]
    by = table.text("group_by")
    key = table.template("group_by", _KEY_TOKENS)
    count = table.number("count", 1)
    quiet = table.read("quiet", parse_duration, 0.0) if "quiet" in table else None
    marker = table.read("marker", _marker, "") or None
    schedule = table.read("cron", lambda text: parse_schedule(text, zone), None)
    needs = Needs(table.word("needs", list(Needs), Needs.ANY))
    if by is None:
        for name in (*given, *(("needs",) if "needs" in table else ())):
            table.wrong(name, f'means nothing without group_by: write group_by = "{_DIRECTORY}"')
        return None
    if by == _DIRECTORY:
        key = Template("{file.dir}", _KEY_TOKENS)
    elif key.constant:
        table.wrong("group_by", f'must be "{_DIRECTORY}" or have placeholders in it, as in "{{match:region}}"')
    if not given:
        table.wrong("group_by", f"says what goes together, but not when: give one of {', '.join(_CONDITIONS)}")
    if quiet is not None and quiet < 0:
        table.wrong("quiet", "must not be negative")
    return Grouping(key=key, count=count, quiet=quiet, marker=marker, schedule=schedule, needs=needs)


def _marker(text: str) -> str:
    if "/" in text or re.search(r"[*?\[{]", text):
        raise ValueError("must be the plain name of a file, such as _SUCCESS")
    return text
