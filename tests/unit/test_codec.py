"""Tasks to bytes and back: what is read, what is refused, what travels through."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from task.codec import DEFAULT_MAX_SIZE, decode, encode, encode_done
from task.errors import DecodeError
from task.outcome import Result
from task.task import Dialect, Task

# UTF-8 can write no surrogate.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
WILD_TEXTS = st.text(max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
KNOWN = {"type", "task", "job", "created", "id", "meta", "result", "msg", "started", "completed", "info", "ended"}
EXTRA = st.dictionaries(TEXTS.filter(lambda key: key not in KNOWN), JSON, max_size=3)
TASKS = st.builds(
    Task,
    TEXTS.filter(bool),
    TEXTS,
    job=st.none() | TEXTS,
    created=st.none() | st.datetimes(),
    id=st.none() | TEXTS,
    meta=st.dictionaries(TEXTS, TEXTS, max_size=4),
    extra=EXTRA,
    dialect=st.sampled_from(Dialect),
)
GO_TASK = (
    b'{"type":"t","job":"j","info":"s3://b/f?a=1&b=<2>","created":"2017-10-28T15:42:07Z","id":"i",'
    b'"meta":"workflow=w.toml&cron=2017-01-01T01"}'
)


def nested(depth: int) -> bytes:
    """A task with an unknown key that nests this deep."""
    return b'{"type":"t","x":' + b"[" * depth + b"]" * depth + b"}"


def code_of(body: bytes, **options: Any) -> str:
    """The code with which ``body`` is refused."""
    with pytest.raises(DecodeError) as caught:
        decode(body, **options)
    assert str(caught.value)
    return caught.value.code


def done(task: Task, msg: str = "ok", meta: dict[str, str] | None = None) -> dict[str, Any]:
    """The done task as a standard JSON reader sees it."""
    body = encode_done(task, "complete", msg, "2017-01-01T00:00:00Z", "2017-01-01T00:00:01Z", meta)
    return json.loads(body)  # type: ignore[no-any-return]


@given(TASKS)
def test_round_trip(task: Task) -> None:
    """In both dialects a task is read as it was written."""
    read = decode(encode(task))

    assert read == task
    assert read.dialect is task.dialect


@given(TASKS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=3), st.sampled_from(Result))
def test_done_round_trip(task: Task, msg: str, meta: dict[str, str], result: Result) -> None:
    """A done task keeps all of the task, unknown keys too, and says how it went."""
    began, ended = "2017-01-01T00:00:00.000Z", "2017-01-01T00:00:01.500Z"

    read = decode(encode_done(task, result, msg, began, ended, meta))

    assert read.extra == task.extra
    assert read.meta == {**task.meta, **meta}
    assert (read.type, read.value, read.job, read.id) == (task.type, task.value, task.job, task.id)
    assert (read.created, read.dialect) == (task.created, task.dialect)
    assert (read.result, read.msg) == (result, msg)
    assert (str(read.started), str(read.completed)) == ("2017-01-01 00:00:00+00:00", "2017-01-01 00:00:01.500000+00:00")


@given(TASKS, WILD_TEXTS, st.dictionaries(WILD_TEXTS, WILD_TEXTS, max_size=3))
@example(Task("t"), "\udce4 file", {"\ud800": "\udfff"})
@example(Task("t", dialect=Dialect.GO), "\udce4 file", {"\ud800": "\udfff"})
def test_done_always_encodes(task: Task, msg: str, meta: dict[str, str]) -> None:
    """Whatever a worker says, lone surrogates included, the done task is valid JSON that decodes."""
    body = encode_done(task, "error", msg, "2017-01-01T00:00:00Z", "2017-01-01T00:00:01Z", meta)

    assert json.loads(body)["type"] == task.type
    assert decode(body).result is Result.ERROR


@pytest.mark.parametrize("msg", [5, None, ValueError("x"), b"x"])
def test_done_msg_of_another_type(msg: Any) -> None:
    """A message that is no text is written as one, so that the done task decodes."""
    assert decode(json.dumps(done(Task("t"), msg)).encode()).msg == str(msg)


@pytest.mark.parametrize("said", [{}, {"result": "error"}, {"msg": "no"}, {"started": "2017-01-01T00:00:00Z"}])
@pytest.mark.parametrize("key", ["task", "info"])
def test_a_done_task_says_everything_once(said: dict[str, str], key: str) -> None:
    """Of a task that was done before only the last result remains; times of one task do not reach another."""
    for times in (("2020-01-01T00:00:00Z", "2020-01-01T00:00:01Z"), ("2021-01-01T00:00:00Z", "2021-01-01T00:00:01Z")):
        body = encode_done(decode(json.dumps({"type": "t", key: "v", **said}).encode()), "complete", "", *times)
        pairs = json.loads(body, object_pairs_hook=list)
        completed = "completed" if key == "task" else "ended"
        expected = {"type": "t", key: "v", "result": "complete", "msg": "", "started": times[0], completed: times[1]}
        assert sorted(pairs) == sorted(expected.items())


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
def test_any_bytes(body: bytes) -> None:
    """Any bytes are a task or a DecodeError, nothing else."""
    with contextlib.suppress(DecodeError):
        assert decode(body).type


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)) | TEXTS, JSON, max_size=8), st.booleans())
@example({"result": {"a": 1}}, True)
@example({"result": ["complete"]}, True)
@example({"completed": None, "ended": None}, True)
@example({"info": "", "completed": "2017-01-01", "ended": None}, True)
@example({"created": "0001-01-01T00:00:00+14:00"}, True)
def test_any_object(data: dict[str, Any], typed: bool) -> None:
    """Any JSON object is a task, which can then be used and written again, or a DecodeError."""
    if typed:
        data["type"] = "t"
    try:
        task = decode(json.dumps(data).encode())
    except DecodeError:
        return

    assert isinstance(task.value, str)
    assert decode(encode(task)) == task
    assert done(task)["result"] == "complete"
    for time in (task.created, task.started, task.completed):
        assert time is None or time.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not-json"),
        (b"\n", "not-json"),
        (b"hello", "not-json"),
        (b'{"type":"t"', "not-json"),
        (b'{"type":"t"} {"type":"t"}', "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"type":"t","x":' * 100_000, "not-json"),
        (nested(100_000), "not-json"),
        (nested(1000), "not-json"),
        (nested(254), "not-json"),
        (b'{"type":"t","x":NaN}', "not-json"),
        (b'{"type":"t","x":Infinity}', "not-json"),
        (b'{"type":"t","x":-Infinity}', "not-json"),
        (b'{"type":"t","x":1e999}', "not-json"),
        (b'{"type":"t","x":' + b"9" * 5000 + b"}", "not-json"),
        (rb'{"type":"t","task":"\ud800"}', "not-json"),
        (rb'{"type":"t","task":"\udfff\ud800"}', "not-json"),
        (b'{"type":"t","task":"\xff"}', "not-json"),
        (b'{"type":"t","task":"\xed\xa0\x80"}', "not-json"),
        (b'{"type":"t","task":"\xc0\xaf"}', "not-json"),
        (b'\xef\xbb\xbf{"type":"t"}', "not-json"),
        ('{"type":"t"}'.encode("utf-16"), "not-json"),
        (b"{'type':'t'}", "not-json"),
        (b'{"type":"t",}', "not-json"),
        (b"1", "not-object"),
        (b"null", "not-object"),
        (b"true", "not-object"),
        (b'"type"', "not-object"),
        (b'[{"type":"t"}]', "not-object"),
        (b"{}", "no-type"),
        (b'{"task":"v"}', "no-type"),
        (b'{"type":""}', "no-type"),
        (b'{"type":null}', "no-type"),
        (b'{"type":5}', "no-type"),
        (b'{"type":["t"]}', "no-type"),
        (b'{"type":"t","task":5}', "bad-field"),
        (b'{"type":"t","task":null}', "bad-field"),
        (b'{"type":"t","info":{}}', "bad-field"),
        (b'{"type":"t","id":5}', "bad-field"),
        (b'{"type":"t","job":[]}', "bad-field"),
        (b'{"type":"t","msg":{}}', "bad-field"),
        (b'{"type":"t","result":"done"}', "bad-field"),
        (b'{"type":"t","result":{"a":1}}', "bad-field"),
        (b'{"type":"t","result":["complete"]}', "bad-field"),
        (b'{"type":"t","meta":[]}', "bad-field"),
        (b'{"type":"t","meta":5}', "bad-field"),
        (b'{"type":"t","meta":{"a":{"b":"c"}}}', "bad-field"),
        (b'{"type":"t","meta":{"a":["b"]}}', "bad-field"),
        (b'{"type":"t","created":"yesterday"}', "bad-time"),
        (b'{"type":"t","created":1509205327}', "bad-time"),
        (b'{"type":"t","created":["2017-10-28T15:42:07Z"]}', "bad-time"),
        (b'{"type":"t","created":"2017-13-28T15:42:07Z"}', "bad-time"),
        (b'{"type":"t","created":"2017-10-28T23:59:60Z"}', "bad-time"),
        (b'{"type":"t","created":"2017-10-28T15:42:07+24:00"}', "bad-time"),
        (b'{"type":"t","created":"0001-01-01T00:00:00+14:00"}', "bad-time"),
        (b'{"type":"t","started":"9999-12-31T23:59:59-01:00"}', "bad-time"),
        (b'{"type":"t","completed":"x"}', "bad-time"),
        (b'{"type":"t","info":"","ended":"x"}', "bad-time"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else value,
)
def test_refused(body: bytes, code: str) -> None:
    """What is no task is refused with the code that dead letters carry."""
    assert code_of(body, max_size=100_000_000) == code


def test_too_large() -> None:
    """A body over the limit is refused unread; the limit can be raised."""
    body = b'{"type":"t","task":"' + b"x" * 20_000_000 + b'"}'

    assert code_of(body) == "too-large"
    assert len(decode(body, max_size=len(body)).value) == 20_000_000


def test_size_limit_is_inclusive() -> None:
    """A body of exactly the limit is read, one byte more is not."""
    body = b'{"type":"t"}'.ljust(DEFAULT_MAX_SIZE)

    assert decode(body).type == "t"
    assert code_of(body + b" ") == "too-large"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"type":"t","meta":{"cron":{"b":1}}}', ["cron", "object"]),
        (b'{"type":"t","created":"yesterday"}', ["created", "yesterday"]),
        (b'{"type":"t","result":"don"}', ["result", "complete"]),
        (b'{"type":"t","task":5}', ["value", "number"]),
    ],
)
def test_errors_name_the_field(body: bytes, told: list[str]) -> None:
    """The text of the error names the field and what is wrong with it."""
    with pytest.raises(DecodeError) as caught:
        decode(body)

    assert all(word in str(caught.value) for word in told)


def test_long_values_are_cut_in_errors() -> None:
    """A wrong value of megabytes does not make an error of megabytes."""
    with pytest.raises(DecodeError) as caught:
        decode(b'{"type":"t","created":"' + b"x" * 500_000 + b'"}')

    assert len(str(caught.value)) < 200


def test_deepest_readable_can_be_written() -> None:
    """The deepest task that is read can be written again, done too."""
    task = decode(nested(253))

    assert decode(encode(task)) == task
    assert done(task)["x"] == task.extra["x"]


def test_brackets_in_texts_are_not_depth() -> None:
    """A value full of brackets is no nesting."""
    assert decode(b'{"type":"t","task":"' + b"[" * 1000 + b'"}').value == "[" * 1000


@pytest.mark.parametrize("body", [b'{"type":"t"}\r\n', b' \t{"type":"t"} ', b'{"type":"t","task":"","x":null}'])
def test_whitespace_around_is_accepted(body: bytes) -> None:
    """Line ends and blanks around the object are no part of it, and the value may be missing."""
    assert (decode(body).type, decode(body).value) == ("t", "")


def test_last_of_a_repeated_key_counts() -> None:
    """Of a key given twice the last one counts."""
    assert decode(b'{"type":"a","type":"b"}').type == "b"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("2017-10-28T15:42:07.8", "2017-10-28T15:42:07.800Z"),
        ("2017-10-28T15:42:07", "2017-10-28T15:42:07.000Z"),
        ("2017-10-28T17:42:07.8+02:00", "2017-10-28T15:42:07.800Z"),
        ("2017-10-28", "2017-10-28T00:00:00.000Z"),
        ("2017-10-28T15:42:07Z", "2017-10-28T15:42:07Z"),
        ("2017-10-28T15:42:07.123456789Z", "2017-10-28T15:42:07.123456789Z"),
    ],
)
def test_times(text: str, means: str) -> None:
    """A time without a zone is UTC; what does not end in Z leaves as RFC 3339 in UTC, the rest as it came."""
    assert done(decode(json.dumps({"type": "t", "created": text}).encode()))["created"] == means


@pytest.mark.parametrize("field", ["created", "started", "completed", "result", "id", "job", "msg"])
def test_null_is_none(field: str) -> None:
    """A null field is as good as none, and is not written again."""
    task = decode(json.dumps({"type": "t", field: None}).encode())

    assert field not in json.loads(encode(task))


@pytest.mark.parametrize("field", ["created", "started", "completed", "result"])
def test_empty_is_none(field: str) -> None:
    """The Go toolkit's empty times and results count as none."""
    assert getattr(decode(json.dumps({"type": "t", field: ""}).encode()), field) is None


def test_scalars_in_meta_become_texts() -> None:
    """Numbers and booleans in meta are read as the texts they were written with."""
    assert decode(b'{"type":"t","meta":{"a":1,"b":true,"c":null,"d":1.5}}').meta == {
        "a": "1",
        "b": "true",
        "c": "null",
        "d": "1.5",
    }


def test_unknown_keys_travel() -> None:
    """Unknown keys, nested ones too, are in the done task as they came."""
    unknown = {"x": {"y": [1, 2.5, None, True]}, "z": "ü", "priority": 18446744073709551615}

    assert done(decode(json.dumps({"type": "t", **unknown}).encode())).items() >= unknown.items()


def test_query_meta_in_our_dialect() -> None:
    """A query-string meta beside the key ``task`` is read, and answered as an object."""
    assert done(decode(b'{"type":"t","task":"v","meta":"a=1&b=x%20y"}'))["meta"] == {"a": "1", "b": "x y"}


def test_ended_without_value() -> None:
    """``ended`` is read as ``completed`` even in a task without a value."""
    task = decode(b'{"type":"t","ended":"2017-10-28T15:42:07Z"}')

    assert str(task.completed) == "2017-10-28 15:42:07+00:00"
    assert "ended" not in task.extra


def test_info_beside_task_is_unknown() -> None:
    """With both ``task`` and ``info`` the task is in our dialect and ``info`` just travels along."""
    task = decode(b'{"type":"t","task":"v","info":"w"}')

    assert (task.value, task.dialect, task.extra) == ("v", Dialect.TASKBUS, {"info": "w"})


def test_go_task_is_read() -> None:
    """The Go toolkit's keys are read as ours."""
    task = decode(GO_TASK)

    assert task.dialect is Dialect.GO
    assert (task.type, task.job, task.value, task.id) == ("t", "j", "s3://b/f?a=1&b=<2>", "i")
    assert task.meta == {"workflow": "w.toml", "cron": "2017-01-01T01"}


def test_go_task_is_answered_in_kind() -> None:
    """A Go task is answered with Go's keys in Go's order, meta as an escaped query string, and &<> as they are."""
    task = decode(GO_TASK)

    body = encode_done(
        task,
        "complete",
        "a & <b>",
        "2017-10-28T15:42:08.000Z",
        "2017-10-28T15:42:09.000Z",
        {"file": "s3://b/f?x=1&y=50% +"},
    )

    assert body == (
        b'{"type":"t","job":"j","info":"s3://b/f?a=1&b=<2>","created":"2017-10-28T15:42:07Z","id":"i",'
        b'"meta":"workflow=w.toml&cron=2017-01-01T01&file=s3%3A%2F%2Fb%2Ff%3Fx%3D1%26y%3D50%25+%2B",'
        b'"result":"complete","msg":"a & <b>","started":"2017-10-28T15:42:08.000Z","ended":"2017-10-28T15:42:09.000Z"}'
    )


def test_go_task_round_trips_bytewise() -> None:
    """A Go task that was only passed on is written as it came."""
    body = b'{"type":"t","info":"v","created":"2017-10-28T15:42:07Z","id":"i","meta":"a=1"}'

    assert encode(decode(body)) == body


def test_go_info_is_always_written() -> None:
    """The Go toolkit always writes ``info``, and so does the answer."""
    assert done(decode(b'{"type":"t","info":""}'))["info"] == ""


def test_go_time_without_zone_leaves_with_one() -> None:
    """The Go toolkit refuses a whole task for a time without a zone, so none leaves."""
    task = decode(b'{"type":"t","info":"","created":"2017-10-28T15:42:07.8"}')

    assert done(task)["created"] == "2017-10-28T15:42:07.800Z"


@pytest.mark.parametrize(
    ("text", "meta"),
    [
        ("", {}),
        ("a", {"a": ""}),
        ("a=1&a=2", {"a": "1,2"}),
        ("a=%ff", {"a": "\ufffd"}),
        ("a=x+y&b=%3B;", {"a": "x y", "b": ";;"}),
        ("file=s3://b/f?a=1&b=2", {"file": "s3://b/f?a=1", "b": "2"}),
    ],
)
def test_go_meta(text: str, meta: dict[str, str]) -> None:
    """A query-string meta is read liberally, also as the Go launcher stores it: unescaped."""
    assert decode(json.dumps({"type": "t", "info": "", "meta": text}).encode()).meta == meta


def test_done_does_not_touch_the_task() -> None:
    """Making the done task leaves the task as it was."""
    task = Task("t", meta={"a": "1"})

    done(task, meta={"a": "2", "b": "3"})

    assert task.meta == {"a": "1"}
    assert task.result is None
