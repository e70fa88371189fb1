"""Tasks, values, templates, units, moments and URLs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from apps.redrive.letters import NotRedrivableError, read_letter
from apps.redrive.pace import parse_rate
from bus import BusError, Delivery, TaskbusError, connect, parse_url
from bus.units import format_duration, parse_duration, parse_size
from task.codec import decode, encode, encode_done
from task.errors import DecodeError, ParamsError
from task.kinds import Seconds
from task.params import param, read_params, write_params
from task.times import parse_time
from task.uri import URI, unescape, unescape_query
from taskmasters.batch.moments import parse_hours, parse_moment
from taskmasters.cron.schedule import parse_schedule
from taskmasters.templates import (
    COMMON,
    FILE,
    GROUP,
    ITEM,
    JOB,
    META,
    PARENT,
    ROW,
    RUN,
    TIME,
    Files,
    MissingValueError,
    Scope,
    Template,
)
from taskmasters.zone import find_zone
from tests.fuzz.seeds import DEAD_LETTER, TASKS, VALUES
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

_AT = "2026-01-01T00:00:00Z"
_TOKENS = [*TIME, *COMMON, *META, *PARENT, *ITEM, *ROW, *RUN, *FILE, *GROUP, JOB]
_UTC = find_zone("UTC")
_BERLIN = find_zone("Europe/Berlin")


def text(data: bytes) -> str:
    """What stands in for a text from outside: any characters, but no lone surrogates."""
    return data.decode("utf-8", "replace")


def _task(data: bytes) -> None:
    task = decode(data)
    assert decode(encode(task)) == task
    done = decode(encode_done(task, "error", "no \ud800", _AT, _AT, {"k": "v"}))
    assert (done.type, done.value, done.id) == (task.type, task.value, task.id)


@dataclass(frozen=True)
class _Params:
    origin: str
    width: int
    ratio: float = 1.0
    dry_run: bool = False
    formats: list[str] = field(default_factory=list)
    since: datetime | None = None
    day: date | None = None
    wait: Seconds | None = None
    tags: dict[str, int] = field(default_factory=dict)
    mode: str = param(default="a", key="mode")


def _params(data: bytes) -> None:
    params = read_params(text(data), _Params)
    try:
        written = write_params(params)
    except ValueError:
        return  # what no value can express
    assert read_params(written, _Params) == params, written


def _uri(data: bytes) -> None:
    uri = URI.split(text(data))
    for part in (uri.path, uri.fragment, uri.login):
        unescape(part)
    unescape_query(uri.query)


def _template(data: bytes) -> None:
    template = Template(text(data), _TOKENS)
    scope = Scope(
        id="7",
        when=datetime(2026, 1, 31, 5, tzinfo=UTC),
        meta={"name": "a b/{yyyy}"},
        parent=decode(TASKS[1]),
        item="i",
        row={"day": "x"},
        run="r",
        workflow="w",
        files=Files("/in/a.csv", 3, datetime(2026, 1, 1, tzinfo=UTC), {"m": None}, "g", ["/in/a.csv"]),
    )
    template.render(scope)


def _duration(data: bytes) -> None:
    seconds = parse_duration(text(data))
    again = parse_duration(format_duration(seconds))
    assert abs(again - seconds) <= max(1e-6, abs(seconds) * 1e-5), format_duration(seconds)


def _size(data: bytes) -> None:
    assert parse_size(text(data)) >= 0


def _moment(data: bytes) -> None:
    assert isinstance(parse_moment(text(data), _BERLIN, 1767225600.0), int)


def _hours(data: bytes) -> None:
    assert parse_hours(text(data)) <= set(range(24))


def _schedule(data: bytes) -> None:
    schedule = parse_schedule(text(data), _BERLIN)
    first = schedule.next(1767225600)
    assert first is None or first > 1767225600


def _time(data: bytes) -> None:
    assert parse_time(text(data)).tzinfo is not None


def _rate(data: bytes) -> None:
    assert parse_rate(text(data)) > 0


def _url(data: bytes) -> None:
    url = parse_url(text(data))
    shown = str(url)
    password = "" if url.password is None else url.password.reveal()
    if len(password) > 8 and text(data).count(password) == 1:
        assert password not in shown
    connect(url)


def _letter(data: bytes) -> None:
    letter = read_letter(Delivery(data, "1"), None)
    if letter.parts is None:
        letter.message(None)


TARGETS = (
    Target("task", TASKS, _task, (DecodeError,)),
    Target("params", VALUES, _params, (ParamsError,)),
    Target("uri", VALUES, _uri, (ValueError,)),
    Target(
        "template",
        (
            b"s3://b/{yyyy}/{mm}/{dd|raw}?hour={hh}&name={meta:name|quote}&x={meta:y|default:z}",
            b"{parent.msg}{{}}{item}{row:day}{file.dir}{match:m}{job.load.meta:rows|default:0}{group}{count}",
            b"/{parent.path}/{YYYY}?a={parent:width}#{ts}{id}{hostname}",
        ),
        _template,
        (ValueError, MissingValueError),
    ),
    Target("duration", (b"1h30m", b"250ms", b"90", b"-1.5d", b"+.5us", b"2w1s"), _duration, (ValueError,)),
    Target("size", (b"1MiB", b"64 KB", b"1048576", b"1.5g"), _size, (ValueError,)),
    Target(
        "moment",
        (b"2026-01", b"2026-01-31T05:30:01", b"now", b"-36h", b"2026-01-31T05:30:00+02:00"),
        _moment,
        (ValueError,),
    ),
    Target("hours", (b"0,4,8-12", b"23", b" 1 - 2"), _hours, (ValueError,)),
    Target(
        "schedule",
        (b"0 5 * * 1-5", b"*/10 0 0 L * ?", b"@daily", b"@every 90s", b"30 2 29 2 MON#1", b"0 0 LW JAN,FEB *"),
        _schedule,
        (ValueError,),
        cost=10,
    ),
    Target(
        "time", (b"2017-10-28T15:42:07.8Z", b"2017-10-28 15:42", b"2017-10-28T15:42:07+02:00"), _time, (ValueError,)
    ),
    Target("rate", (b"100/s", b"30/m", b"1e3/h", b"5"), _rate, (ValueError,)),
    Target(
        "url",
        (
            b"sqlite:///x.db?lease=5s&max_size=1MiB",
            b"nats://me:secret-password@127.0.0.1:4222,localhost/app?token=t&replicas=3&tls=true",
            b"nsq://127.0.0.1:4150?lookupd=http://h:4161&lease=60s&http=4151",
            b"kafka://u:p@[::1]:9092/?session=10s&partitions=4&sasl=plain",
            b"pubsub:project?emulator=127.0.0.1:8085&lease=30s",
            b"memory:x?dedupe=0",
            b"file:/nowhere/x?lease=1m",
            b"inject+memory:x?inject-rate=0.1&inject-seed=7&inject-operations=ack,nack",
            b"lines:-",
        ),
        _url,
        (BusError,),
        cost=5,
    ),
    Target("dead-letter", DEAD_LETTER, _letter, (TaskbusError, NotRedrivableError)),
)
