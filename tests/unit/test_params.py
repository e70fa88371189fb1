"""Typed parameters from task values and back."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bus import Secret
from task.errors import ParamsError
from task.params import Seconds, param, read_params, write_params
from task.task import Task
from task.uri import URI

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Beyond some centuries a duration's seconds no longer fit a float to the microsecond.
LENGTHS = st.timedeltas(timedelta(days=-30_000), timedelta(days=30_000))


class Color(Enum):
    RED = "red"
    DEEP_BLUE = "deep,blue|x:y"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Everything:
    text: str = "a"
    flag: bool = False
    number: int = 0
    ratio: float = 0.0
    price: Decimal = Decimal("0")
    wait: Seconds = 1.0
    length: timedelta = timedelta(0)
    at: datetime = datetime(2017, 1, 1, tzinfo=UTC)
    day: date = date(2017, 1, 1)
    color: Color = Color.RED
    level: Level = Level.LOW
    mode: Literal["fast", "slow", 3, True] = "fast"
    token: Secret | None = None
    texts: list[str] = field(default_factory=lambda: ["a"])
    numbers: tuple[int, ...] = (1, 2)
    waits: list[Seconds] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=lambda: {"a": "b"})
    counts: dict[str, int] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    tuples: dict[str, tuple[int, ...]] = field(default_factory=dict)
    maybe_number: int | None = 5
    maybe_text: str | None = None
    maybe_at: datetime | None = None
    maybe_list: list[int] | None = None
    renamed: str = param(default="", key="path")


@dataclass
class Parts:
    origin: str | None = None
    scheme: str | None = None
    host: str | None = None
    path: str | None = None
    filename: str | None = None
    fragment: str | None = None
    username: str | None = None
    password: Secret | None = None


@dataclass
class Resize:
    origin: str
    width: int
    dry_run: bool = False
    formats: list[str] = param(default_factory=lambda: ["jpg"], key="format")  # noqa: RUF009


EVERYTHING = st.builds(
    Everything,
    text=TEXTS,
    flag=st.booleans(),
    number=st.integers(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    wait=st.floats(allow_nan=False, allow_infinity=False),
    length=LENGTHS,
    at=st.datetimes(timezones=st.just(UTC)),
    day=st.dates(),
    color=st.sampled_from(Color),
    level=st.sampled_from(Level),
    mode=st.sampled_from(["fast", "slow", 3, True]),
    token=st.none() | TEXTS.map(Secret),
    texts=st.lists(TEXTS, max_size=3),
    numbers=st.lists(st.integers(), max_size=3).map(tuple),
    waits=st.lists(st.floats(0, 1e9), max_size=3),
    colors=st.lists(st.sampled_from(Color), max_size=3),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=3),
    counts=st.dictionaries(TEXTS, st.integers(), max_size=3),
    groups=st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3), max_size=3),
    tuples=st.dictionaries(TEXTS, st.lists(st.integers(), max_size=3).map(tuple), max_size=3),
    maybe_number=st.none() | st.integers(),
    maybe_text=st.none() | TEXTS,
    maybe_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    maybe_list=st.none() | st.lists(st.integers(), max_size=3),
    renamed=TEXTS,
)
#: Texts made of what the syntax is made of.
TRICKY = st.text("ab1 ?&=#%+-_:/|,.;@[]\\\ud800\u00e9\x002CTZ", max_size=40)


def problem(value: str, into: type[Any], **options: bool) -> str:
    """The text with which ``value`` is refused."""
    with pytest.raises(ParamsError) as caught:
        read_params(value, into, **options)
    return str(caught.value)


def one(hint: Any, text: str) -> Any:
    """What ``?x=text`` gives for a field of this type."""
    return read_params(f"?x={text}", dataclasses.make_dataclass("One", [("x", hint)])).x


def test_reads_the_readme_example() -> None:
    """Parts, numbers, flags and lists are read by name; `-` and `_` are alike and unknown keys do not matter."""
    value = "s3://photos/2017/cat.jpg?width=640&dry-run&format=jpg,png&color=red"

    assert read_params(value, Resize) == Resize("s3://photos/2017/cat.jpg", 640, True, ["jpg", "png"])
    assert read_params(value.replace("dry-run", "dry_run"), Resize).dry_run is True
    assert Task("resize", value).params(Resize).width == 640


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (
            "s3://b/2017/f.json.gz?x=1#tail",
            Parts("s3://b/2017/f.json.gz", "s3", "b", "/2017/f.json.gz", "f.json.gz", "tail"),
        ),
        ("/local/dir/?x", Parts("/local/dir/", path="/local/dir/")),
        ("2017-01-01T01", Parts("2017-01-01T01", path="2017-01-01T01", filename="2017-01-01T01")),
        ("a/b c%20d+e", Parts("a/b c d+e", path="a/b c d+e", filename="b c d+e")),
        ("nop://host", Parts("nop://host", "nop", "host")),
        ("FILE:///x", Parts("file:///x", "file", path="/x", filename="x")),
        ("pg://me:p%40ss@db:5432/t", Parts("pg://db:5432/t", "pg", "db:5432", "/t", "t", None, "me", Secret("p@ss"))),
        ("//b/c", Parts("//b/c", path="//b/c", filename="c")),
        ("c:\\d", Parts("c:\\d", path="c:\\d", filename="c:\\d")),
        ("s3://b/k#t?x=1", Parts("s3://b/k", "s3", "b", "/k", "k", "t?x=1")),
        ("", Parts()),
        ("?", Parts()),
    ],
)
def test_parts(value: str, parts: Parts) -> None:
    """The parts of a value have field names of their own; the origin is without user and password."""
    assert read_params(value, Parts) == parts


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "a%20b+c", "a b c"),
        (str, "", ""),
        (str, "a;b=c", "a;b=c"),
        (bool, "", True),
        (bool, "true", True),
        (bool, "1", True),
        (bool, "Yes", True),
        (bool, "false", False),
        (bool, "0", False),
        (bool, "no", False),
        (int, "-5", -5),
        (int, "%2B5", 5),
        (float, "1e3", 1000.0),
        (Decimal, "1.10", Decimal("1.10")),
        (Seconds, "1h30m", 5400.0),
        (Seconds, "1.5", 1.5),
        (timedelta, "250ms", timedelta(milliseconds=250)),
        (datetime, "2006-01-02T15", datetime(2006, 1, 2, 15, tzinfo=UTC)),
        (datetime, "2006-01-02T15:04:05Z", datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC)),
        (datetime, "2006-01-02T17:04:05%2B02:00", datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC)),
        (date, "2006-01-02", date(2006, 1, 2)),
        (Color, "red", Color.RED),
        (Level, "HIGH", Level.HIGH),
        (Literal["a", 5], "5", 5),
        (Secret, "x", Secret("x")),
        (list[int], "1,2", [1, 2]),
        (list[int], "1%2C2", [1, 2]),
        (list[int], "1&x=2,3", [1, 2, 3]),
        (list[int], "", []),
        (list[str], ",", [""]),
        (list[str], "a%2Cb,", ["a,b"]),
        (list[str], "a%2cb,c", ["a,b", "c"]),
        (tuple[str, ...], "a,b", ("a", "b")),
        (dict[str, int], "k:1|k2:2", {"k": 1, "k2": 2}),
        (dict[str, int], "k:1&x=k2:2", {"k": 1, "k2": 2}),
        (dict[str, int], "k%3A1%7Ck2%3A2", {"k": 1, "k2": 2}),
        (dict[str, str], "k:http://x", {"k": "http://x"}),
        (dict[str, str], "", {}),
        (dict[str, list[int]], "k:1,2|j:3,4", {"k": [1, 2], "j": [3, 4]}),
        (dict[str, list[int]], "k:1|k:2", {"k": [1, 2]}),
        (int | None, "5", 5),
        (int | None, "", None),
        (str | None, "", ""),
        (list[int] | None, "", []),
    ],
)
def test_types(hint: Any, text: str, value: object) -> None:
    """Each type is read from its text, as the Go toolkit writes it and as people do."""
    assert one(hint, text) == value
    assert type(one(hint, text)) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "told"),
    [
        (bool, "maybe", "x: 'maybe' is not true or false"),
        (int, "", "x: '' is not a whole number"),
        (int, "1.5", "x: '1.5' is not a whole number"),
        (int, "1_000", "x: '1_000' is not a whole number"),
        (int, "9" * 5000, "is not a whole number"),
        (int, "1&x=2", "x: given 2 times, but it has one value: a whole number"),
        (float, "nan", "x: 'nan' is not a number"),
        (float, "1e999", "x: '1e999' is not a number"),
        (float, "1_0", "x: '1_0' is not a number"),
        (Decimal, "sNaN", "x: 'sNaN' is not a decimal number"),
        (Decimal, "1e99999999999999999999", "is not a decimal number"),
        (Seconds, "soon", "x: 'soon' is not a duration like 250ms, 90s, 1h30m or 2d"),
        (timedelta, "9" * 300, "is not a duration"),
        (datetime, "yesterday", "x: 'yesterday' is not a time like 2006-01-02T15"),
        (datetime, "0001-01-01T00:00:00%2B14:00", "is not a time"),
        (date, "2006-01-02T15", "x: '2006-01-02T15' is not a date like 2006-01-02"),
        (Color, "green", "x: 'green' is not one of red, "),
        (Level, "1", "x: '1' is not one of LOW, HIGH"),
        (Literal["a", "b"], "c", "x: 'c' is not one of a, b"),
        (str, "%ff", "x: its percent-encoding is not UTF-8"),
        (list[int], "1,x", "x: 'x' is not a whole number"),
        (dict[str, int], "k", "x: 'k' has no ':'; it must be a map like k:v|k2:v2 where each value is a whole number"),
        (dict[str, int], "k:x", "x: at 'k', 'x' is not a whole number"),
        (dict[str, int], "k:1|k:2", "x: at 'k', given 2 times"),
    ],
)
def test_wrong_texts(hint: Any, text: str, told: str) -> None:
    """A text that does not fit is named with its field, what was given and what is accepted."""
    assert told in problem(f"?x={text}", dataclasses.make_dataclass("One", [("x", hint)]))


def test_all_problems_at_once() -> None:
    """One error tells everything that is wrong."""
    told = problem("?width=wide&dry-run=maybe&wdith=5", Resize, strict=True)

    assert told == (
        "the task value does not fit Resize: origin: missing, it must be a text; width: 'wide' is not a whole number; "
        "dry-run: 'maybe' is not true or false; wdith: there is no such parameter; did you mean 'width'?"
    )


def test_long_texts_are_cut() -> None:
    """A wrong text of kilobytes does not make an error of kilobytes."""
    assert len(problem("a?width=" + "x" * 5000, Resize)) < 200


def test_strict_through_the_task() -> None:
    """``Task.params`` can be strict too, and takes every spelling of what there is."""
    assert (
        Task(
            "t",
            "a?width=5&dry_run",
        )
        .params(Resize, strict=True)
        .dry_run
    )
    with pytest.raises(ParamsError, match="colour"):
        Task("t", "a?width=5&colour=red").params(Resize, strict=True)


@pytest.mark.parametrize("hint", [Secret, Secret | None])
def test_secrets_are_not_shown(hint: Any) -> None:
    """A secret is in no error and no repr."""
    login = dataclasses.make_dataclass("Login", [("token", hint), ("password", Secret), ("n", int)])

    assert "hunter2" not in problem("pg://u:hunter2@h/?token=hunter2&token=hunter2&n=x", login)
    assert "hunter2" not in repr(read_params("pg://u:hunter2@h/?token=hunter2&n=1", login))
    assert "hunter2" not in problem("pg://u:hunter2@h/?n=x", login)


def test_unwritable_secret_is_not_shown() -> None:
    """A secret of the wrong type is not shown either."""
    with pytest.raises(ValueError, match="token cannot be written") as caught:
        write_params(Everything(token="hunter2"))  # type: ignore[arg-type]

    assert "hunter2" not in str(caught.value)


def test_defaults() -> None:
    """What is absent has its default, made anew each time, or is None if it may be."""
    first, second = read_params("", Everything), read_params("", Everything)

    assert first == Everything()
    assert first.texts is not second.texts
    assert read_params("", dataclasses.make_dataclass("One", [("x", int | None)])).x is None


def test_key_makes_a_part_a_parameter() -> None:
    """With a key of its own a field named like a part is read from the query."""
    cls = dataclasses.make_dataclass("Copy", [("path", str), ("host", str, param(key="host"))])

    assert read_params("/a?host=b", cls) == cls("/a", "b")


def test_parts_take_any_single_value() -> None:
    """The whole of a bare value can be a time, a number, a choice."""
    cls = dataclasses.make_dataclass("Hour", [("path", datetime), ("fragment", int, 0)])

    assert read_params("2017-01-01T01", cls) == cls(datetime(2017, 1, 1, 1, tzinfo=UTC), 0)
    assert "path: 'x' is not a time" in problem("x#5", cls)


def test_inherited_and_uninitialised_fields() -> None:
    """Inherited fields are read, those that are no argument are not."""

    @dataclass
    class Small(Resize):
        height: int = 1
        area: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            self.area = self.width * self.height
            if self.area > 100:
                raise ValueError("too large an area")

    assert read_params("a?width=5&height=2&area=7", Small).area == 10
    assert problem("a?width=50&height=50", Small) == "the task value does not fit Small: too large an area"


@pytest.mark.parametrize(
    ("hint", "name", "told"),
    [
        (object, "x", "object cannot stand in a task value"),
        (Any, "x", "cannot stand in a task value"),
        (int | str, "x", "cannot stand in a task value"),
        (list, "x", "cannot stand in a task value"),
        (list[list[int]], "x", "cannot stand in a task value"),
        (tuple[int, str], "x", "cannot stand in a task value"),
        (dict[int, str], "x", "cannot stand in a task value"),
        (dict[str, dict[str, int]], "x", "cannot stand in a task value"),
        (Literal[b"x"], "x", "in a Literal"),
        (list[Secret], "x", "Secret"),
        (dict[str, Secret], "x", "Secret"),
        (list[int], "path", "is one value"),
        (str, "password", "bus.Secret"),
    ],
)
def test_wrong_classes(hint: Any, name: str, told: str) -> None:
    """A field that no task value can fill is a TypeError that names it, whatever the value."""
    with pytest.raises(TypeError, match=rf"One\.{name}: .*{told}"):
        read_params("", dataclasses.make_dataclass("One", [(name, hint)]))


def test_wrong_classes_beyond_types() -> None:
    """What is no dataclass, two fields of one key and an annotation that cannot be found are told."""

    @dataclass
    class Unknown:
        x: Nowhere  # type: ignore[name-defined]  # noqa: F821

    twice = dataclasses.make_dataclass("Twice", [("dry_run", bool), ("b", bool, param(key="dry-run"))])

    with pytest.raises(TypeError, match="Task is not a dataclass"):
        read_params("", Task)
    with pytest.raises(TypeError, match="not a dataclass"):
        write_params(5)
    with pytest.raises(TypeError, match=r"Twice\.b: dry_run is read from the query key 'dry-run' already"):
        read_params("", twice)
    with pytest.raises(TypeError, match=r"Unknown cannot be resolved: name 'Nowhere'"):
        read_params("", Unknown)


def test_plans_do_not_keep_classes() -> None:
    """A class made inside a task is let go of, so that memory does not grow with tasks."""
    cls: Any = dataclasses.make_dataclass("Local", [("x", int, 5)])
    read_params("", cls)
    gone = weakref.ref(cls)

    del cls
    gc.collect()

    assert gone() is None


def test_written() -> None:
    """Keys are sorted, defaults left out, and what reads well is not encoded."""
    assert (
        write_params(Resize("s3://photos/my cat?.jpg", 640, True, ["jpg", "a,b"]))
        == "s3://photos/my%20cat%3F.jpg?dry-run=true&format=jpg,a%2Cb&width=640"
    )
    assert write_params(Resize("a", 5)) == "a?width=5"
    assert write_params(Everything()) == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"length": timedelta(hours=1, minutes=30)}, "length=1h30m"),
        ({"length": timedelta(microseconds=-1500)}, "length=-0.001500s"),
        ({"wait": 1e-7}, "wait=0.0000001"),
        ({"at": datetime(2017, 1, 2, tzinfo=UTC)}, "at=2017-01-02T00:00:00Z"),
        ({"at": datetime(2017, 1, 2)}, "at=2017-01-02T00:00:00Z"),  # noqa: DTZ001
        ({"maybe_number": None}, "maybe-number="),
        ({"labels": {}}, "labels="),
        ({"texts": []}, "texts="),
        ({"texts": [""]}, "texts=,"),
        ({"texts": ["a,b"]}, "texts=a%2Cb,"),
        ({"groups": {"k:1": ["a|b", "c"], "j": []}}, "groups=k%3A1:a%7Cb,c|j:"),
        ({"labels": {"a": "b|c"}}, "labels=a:b%7Cc|"),
        ({"token": Secret("s")}, "token=s"),
    ],
)
def test_written_forms(changes: dict[str, Any], text: str) -> None:
    """Each value is written in one way, and read back as it was."""
    given_ = dataclasses.replace(Everything(), **changes)

    assert write_params(given_) == "?" + text


@given(EVERYTHING)
@example(Everything(texts=["a,b", ""], labels={"": ""}, groups={"a|b": [], ":": ["", ","]}))
def test_round_trip(params: Everything) -> None:
    """What is written is read back."""
    assert read_params(write_params(params), Everything) == params


@given(TRICKY)
@example("a%2fb:@//?#")
@example("x://@/%3A%2F%2F")
@example("x://a%2Fb/c")
def test_parts_round_trip(value: str) -> None:
    """The parts of any value are written so that they are read back."""
    try:
        parts = read_params(value, Parts)
    except ParamsError:
        return
    # An origin that looks like another kind of URI once decoded is the one thing with two meanings.
    assume(parts.scheme or "://" not in (parts.origin or ""))
    if "\ud800" in value.partition("?")[0] + value.partition("#")[2]:
        return

    assert read_params(write_params(parts), Parts) == parts


def test_path_that_looks_like_a_uri() -> None:
    """A path that looks like a URI is written as a path."""
    cls = dataclasses.make_dataclass("One", [("path", str), ("scheme", str, "")])

    assert write_params(cls("s3://b/k")) == "s3%3A//b/k"
    assert read_params("s3%3A//b/k", cls) == cls("s3://b/k", "")


@given(st.text() | TRICKY, st.booleans())
def test_any_value(value: str, strict: bool) -> None:
    """Any text gives parameters or a ParamsError, nothing else."""
    for cls in (Everything, Parts, Resize):
        with contextlib.suppress(ParamsError):
            assert isinstance(read_params(value, cls, strict=strict), cls)


@given(st.sampled_from([f.name.replace("_", "-") for f in dataclasses.fields(Everything)]), st.text() | TRICKY)
def test_any_text_for_any_type(key: str, text: str) -> None:
    """Any text for any type gives a value or a ParamsError that names the field."""
    told = ""
    try:
        read_params(f"?{key}={text}", Everything)
    except ParamsError as error:
        told = str(error)

    assert not told or f"{key}: " in told


@given(st.text() | TRICKY)
def test_uri_is_taken_apart_without_loss(value: str) -> None:
    """Putting the parts of a value together again gives a value of the same parts."""
    assert URI.split(str(URI.split(value))) == URI.split(value)


@pytest.mark.parametrize(
    "params",
    [
        Parts(path="\ud800"),
        Parts(host="b"),
        Parts(scheme="s3", host="\ud800"),
        Parts(scheme="s3", host="a/b"),
        Parts(scheme="s3", host="b", path="x"),
        Parts(scheme="no scheme", host="b"),
        Parts(scheme="S3", host="b"),
        Parts(origin="s3://b", host="c"),
        Parts(path="a/b", filename="c"),
        Parts(username="me"),
        Parts(fragment=""),
        Everything(ratio=float("nan")),
        Everything(wait=float("inf")),
        Everything(text="\ud800"),
        Everything(number="5"),  # type: ignore[arg-type]
        Everything(number=1.5),  # type: ignore[arg-type]
        Everything(at="2017-01-01"),  # type: ignore[arg-type]
        Everything(day=datetime(2017, 1, 2, tzinfo=UTC)),
        Everything(mode="other"),  # type: ignore[arg-type]
        Everything(mode=[]),  # type: ignore[arg-type]
        Everything(texts="abc"),  # type: ignore[arg-type]
        Everything(texts=[5]),  # type: ignore[list-item]
        Everything(labels=[]),  # type: ignore[arg-type]
        Everything(length=timedelta.max),
        Everything(text=None),  # type: ignore[arg-type]
    ],
)
def test_unwritable(params: object) -> None:
    """What no value can express is a ValueError that names a field."""
    with pytest.raises(ValueError, match=r"^(\w+, )*\w+ cannot be written: "):
        write_params(params)


def test_optional_without_text_for_none() -> None:
    """None cannot be written for a text with another default, and is not dropped in silence."""
    cls = dataclasses.make_dataclass("One", [("x", str | None, "a")])

    with pytest.raises(ValueError, match="x cannot be written: None would be read as 'a'"):
        write_params(cls(None))
