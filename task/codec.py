"""Tasks to bytes and back. Reading is liberal in form and strict where it protects.

The Go toolkit writes ``info`` for ``task``, ``ended`` for ``completed`` and ``meta`` as a query string. A task read in
that dialect is written in it again, so that both toolkits can share a bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from task.errors import DecodeError
from task.outcome import Result
from task.task import Dialect, Task
from task.times import format_time, parse_time

__all__ = ["DEFAULT_MAX_SIZE", "decode", "encode", "encode_done"]

#: Bytes of the largest task read by default: what NSQ, NATS and Kafka carry unless told otherwise.
DEFAULT_MAX_SIZE = 1024 * 1024

_RESULTS = frozenset(str(result) for result in Result)
_TEXTS = ("task", "job", "id", "msg")
_TIMES = ("created", "started", "completed")
_TO_GO = {"task": "info", "completed": "ended"}
#: Levels of nesting that orjson writes; it reads four times as many.
_MAX_DEPTH = 254
_SPECIAL = ("meta", "result")
#: Keys with a meaning.
_CHECKED = frozenset((*_TEXTS, *_TIMES, *_SPECIAL))
#: What most tasks consist of: texts, and an object of texts.
_COMMON = frozenset(("type", "task", "job", "created", "id", "meta"))
_ONLY_TEXTS = frozenset((str,))
_from_iso = datetime.fromisoformat
_wrap = Task._of
_bare = object.__new__
# Python 3.11 looks a member of an enumeration up so slowly that it shows with tiny tasks.
_TASKBUS, _GO = Dialect
#: Keys that say how a task went.
_SAID = frozenset(("result", "msg", "started", "completed"))
#: The last end of a done task and what it says: one tuple, so that no thread ever sees one of them without the other.
_last_end = (("", "", ""), b"")
#: How much of a wrong value is shown in an error.
_SHOWN = 60


def decode(body: bytes, max_size: int = DEFAULT_MAX_SIZE) -> Task:
    """Read one task.

    Of a key given twice the last one counts, as JSON readers commonly do. An empty time counts as none.

    Raises:
        DecodeError: saying what is wrong; nothing else, whatever the bytes.
    """
    if len(body) > max_size:
        raise DecodeError("too-large", f"{len(body)} bytes are more than the limit of {max_size} (max_task_size)")
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeError("not-json", f"not JSON: {error}") from None
    if type(data) is not dict:
        raise DecodeError("not-object", f"a task is a JSON object, not {_kind(data)}")
    if data.keys() <= _COMMON and _is_common(data):
        task = _bare(Task)  # as Task._of does it, for nearly every task
        task._data, task._dialect = data, _TASKBUS
        return task
    dialect = _TASKBUS
    if "task" not in data:
        if "info" in data:
            dialect = _GO
            data = {"task" if key == "info" else key: value for key, value in data.items()}
        else:
            data["task"] = ""
    if "ended" in data and (dialect is _GO or not data.get("completed")):
        data["completed"] = data.pop("ended")
    _check(data)
    if len(body) > _MAX_DEPTH and body.count(b"[") + body.count(b"{") > _MAX_DEPTH:
        _check_depth(data)
    return _wrap(data, dialect)


def _is_common(data: dict[str, Any]) -> bool:
    """Whether these, nothing but common keys, make a task as they stand: nearly always, so it is found out quickly."""
    created = data.get("created")
    if type(created) is not str or type(data.get("task")) is not str or type(data.get("type")) is not str:
        return False
    if ("id" in data and type(data["id"]) is not str) or ("job" in data and type(data["job"]) is not str):
        return False
    if "meta" in data:
        meta = data["meta"]
        if type(meta) is not dict or not _ONLY_TEXTS.issuperset(map(type, meta.values())):
            return False
    try:
        _from_iso(created)
    except ValueError:
        return False
    return created[-1] == "Z" and data["type"] != ""


def _check_depth(data: dict[str, Any]) -> None:
    """Refuse what could be read but not be written again into the done task."""
    try:
        orjson.dumps(data)
    except orjson.JSONEncodeError:
        raise DecodeError("not-json", f"nested deeper than {_MAX_DEPTH} levels") from None


def _check(data: dict[str, Any]) -> None:
    kind = data.get("type")
    if type(kind) is not str or not kind:
        raise DecodeError("no-type", f"a task needs a type: {_show(kind)} is none" if kind else "the task has no type")
    if type(data["task"]) is not str:
        raise DecodeError("bad-field", f"the task's value must be a text, not {_kind(data['task'])}")
    if not _is_plain(data):
        _check_thoroughly(data)


def _is_plain(data: dict[str, Any]) -> bool:
    """Whether every known key holds what it should and needs no change: nearly always, so it is found out quickly."""
    for key, value in data.items():
        if key not in _CHECKED:
            continue
        if type(value) is str:
            if key in _TIMES:
                if value[-1:] != "Z":
                    return False
                try:
                    _from_iso(value)
                except ValueError:
                    return False
            elif key in _SPECIAL:
                return False
        else:
            return False
    return True


def _check_thoroughly(data: dict[str, Any]) -> None:
    for key in _TEXTS:
        value = data.get(key)
        if type(value) is not str and key in data:
            if value is None:
                del data[key]
            else:
                raise DecodeError("bad-field", f"{key!r} must be a text, not {_kind(value)}")
    for key in _TIMES:
        value = data.get(key)
        if value:
            try:
                moment = parse_time(value)
            except (ValueError, TypeError):
                raise DecodeError("bad-time", f"{key!r} is not an RFC 3339 time: {_show(value)}") from None
            if value[-1] != "Z":
                # Others are stricter: the Go toolkit throws a whole task away for a time without a zone.
                data[key] = format_time(moment)
        elif key in data:
            del data[key]
    if "meta" in data:
        data["meta"] = _read_meta(data["meta"])
    if data.get("result"):
        if type(data["result"]) is not str or data["result"] not in _RESULTS:
            raise DecodeError("bad-field", f"'result' must be one of {', '.join(sorted(_RESULTS))}")
    elif "result" in data:
        del data["result"]


def _read_meta(meta: object) -> dict[str, str]:
    if meta is None:
        return {}
    if isinstance(meta, str):
        return _read_query(meta)
    if not isinstance(meta, dict):
        raise DecodeError("bad-field", f"'meta' must be an object of texts, not {_kind(meta)}")
    for key, value in meta.items():
        if type(value) is not str:
            if isinstance(value, (dict, list)):
                raise DecodeError("bad-field", f"meta {_show(key)} must be a text, not {_kind(value)}")
            meta[key] = orjson.dumps(value).decode()
    return meta


def _read_query(text: str) -> dict[str, str]:
    """A query-string meta. A key given several times keeps all its values, joined by commas."""
    meta: dict[str, str] = {}
    try:
        for key, value in parse_qsl(text, keep_blank_values=True):
            meta[key] = f"{meta[key]},{value}" if key in meta else value
    except ValueError as error:
        raise DecodeError("bad-field", f"'meta' is not a query string: {error}") from None
    return meta


def encode(task: Task) -> bytes:
    """The task as one line of JSON, without a newline, in its own dialect."""
    data = task._data
    return orjson.dumps(data if task._dialect is _TASKBUS else _to_go(data))


def encode_done(
    task: Task, result: str, msg: str, started: str, completed: str, meta: Mapping[str, str] | None = None
) -> bytes:
    """The done task, as :func:`encode` would write it: ``task`` with how it went. Times are RFC 3339 texts."""
    data = task._data
    if msg == "" and not meta and task._dialect is _TASKBUS and data.keys().isdisjoint(_SAID):
        return orjson.dumps(data)[:-1] + _end(result, started, completed)
    data = data.copy()
    if meta:
        data["meta"] = {**data.get("meta", {}), **{str(key): str(value) for key, value in meta.items()}}
    data["result"] = result
    data["msg"] = str(msg)
    data["started"] = started
    data["completed"] = completed
    if task._dialect is _GO:
        data = _to_go(data)
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        return orjson.dumps(_without_surrogates(data))


def _end(result: str, started: str, completed: str) -> bytes:
    """What a done task that says nothing has behind the task; tiny ones share it by the dozen."""
    global _last_end
    known, end = _last_end
    end_of = (result, started, completed)
    if end_of != known:
        fields = {"result": result, "msg": "", "started": started, "completed": completed}
        end = b"," + orjson.dumps(fields)[1:]
        _last_end = (end_of, end)
    return end


def _without_surrogates(data: dict[str, Any]) -> dict[str, Any]:
    """What a worker says may hold lone surrogates (undecodable file names do); a done task must be written anyway."""
    clean = {key: _replace_surrogates(value) for key, value in data.items()}
    if isinstance(data.get("meta"), dict):
        clean["meta"] = {_replace_surrogates(k): _replace_surrogates(v) for k, v in data["meta"].items()}
    return clean


def _replace_surrogates(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _to_go(data: dict[str, Any]) -> dict[str, Any]:
    out = {_TO_GO.get(key, key): value for key, value in data.items()}
    if "meta" in out:
        out["meta"] = urlencode(out["meta"], errors="replace")
    return out


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
