"""Bus URLs: how they are read, and that no secret in one is ever shown."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import BusURL, BusURLError, Secret, connect, option, parse_options, parse_url
from bus.units import parse_duration
from bus.url import nearest


@dataclass(frozen=True)
class Options:
    """Options of every kind an adapter may have."""

    name: str = "n"
    count: int = 1
    ratio: float = 0.5
    sync: bool = True
    wait_time: float = option(parse_duration, 1.0, "How long to wait.")
    api_key: float = option(parse_duration, 0.0, "A secret with a reader of its own.")
    token: int = 0


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("memory:", BusURL("memory")),
        ("sqlite:work.db", BusURL("sqlite", "work.db")),
        ("file:./tasks?a=1&b-c=", BusURL("file", "./tasks", options={"a": "1", "b-c": ""})),
        ("sqlite:///abs/work.db", BusURL("sqlite", "/abs/work.db")),
        ("file:a%20b+c", BusURL("file", "a b+c")),
        ("nats://h", BusURL("nats", "", ("h",))),
        (
            "kafka://h1:9092,h2:9093/p/q?a=x+y%26",
            BusURL("kafka", "/p/q", ("h1:9092", "h2:9093"), options={"a": "x y&"}),
        ),
        ("nats://[::1]:4222", BusURL("nats", "", ("[::1]:4222",))),
        ("pg://u@h/db", BusURL("pg", "/db", ("h",), "u")),
        ("pg://u:p%40s%2Fs@h:5432/db", BusURL("pg", "/db", ("h:5432",), "u", Secret("p@s/s"))),
        ("pg://u:p:w@h", BusURL("pg", "", ("h",), "u", Secret("p:w"))),
        ("pg://u:p@w@h", BusURL("pg", "", ("h",), "u", Secret("p@w"))),
        ("a+b.c-1:x", BusURL("a+b.c-1", "x")),
    ],
)
def test_parse(text: str, url: BusURL) -> None:
    """A URL is a scheme, a path or hosts with a login, and options."""
    assert parse_url(text) == url


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it needs a scheme, as in sqlite:work.db"),
        ("work.db", "it needs a scheme"),
        ("SQLITE:work.db", "it needs a scheme"),
        ("1a:x", "it needs a scheme"),
        ("sqlite:x?a=1&a=2", "option 'a' is given twice"),
        ("nats://h:port", "the port of 'h' is not a number"),
        ("nats://h:99999", "the port of 'h' is not a number"),
        ("nats://h1:1,h2:x", "the port of 'h2' is not a number"),
        ("nats://h/a@b", "there is an @ in the path"),
    ],
)
def test_refused(text: str, told: str) -> None:
    """What is no bus URL is told, with what to write instead."""
    with pytest.raises(BusURLError) as caught:
        parse_url(text)

    assert told in str(caught.value)


@given(st.text() | st.text("ab:/@?&=%[].,1#", max_size=30).map(lambda rest: "x:" + rest))
def test_any_text(text: str) -> None:
    """Any text is a URL or a BusURLError, nothing else."""
    with contextlib.suppress(BusURLError):
        assert parse_url(text).scheme


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pg://u:hunter2@h/db", "pg://u:***@h/db"),
        ("pg://:hunter2@h", "pg://:***@h"),
        ("pg://u@h/db", "pg://u@h/db"),
        ("kafka://h1:1,h2:2?sasl_password=hunter2&acks=all", "kafka://h1:1,h2:2?sasl_password=***&acks=all"),
        ("memory:", "memory:"),
        ("sqlite:/a/b.db?sync=full", "sqlite:/a/b.db?sync=full"),
    ],
)
def test_shown(text: str, shown: str) -> None:
    """A URL is shown with its password and secret options masked, the rest as it is."""
    assert str(parse_url(text)) == shown
    assert repr(parse_url(text)) == shown
    assert f"{parse_url(text)}" == shown


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Password",
        "sasl-pass",
        "passphrase",
        "client_secret",
        "auth_token",
        "api-key",
        "apikey",
        "api_key",
        "access_key",
        "account-key",
        "private_key",
        "nkey_seed",
        "credentials",
        "jwt",
    ],
)
def test_secret_options(key: str) -> None:
    """Options that are named like secrets are masked."""
    assert "hunter2" not in str(parse_url(f"nats://h?{key}=hunter2"))


@pytest.mark.parametrize(
    "text",
    [
        "PG://u:hunter2@h/db",
        "PG://u:hunter2/hunter2@h/db",
        "PG://u:hunter2@hunter2@h/db",
        "PG://h?password=hunter2",
        "PG:x?token=hunter2&a=1",
        "1://u:hunter2@h",
        "://u:hunter2@h",
        "pg://u:hunter2/x@h/db",
        "pg://u:1/hunter2@h/db",
        "pg://u:hunter2?x@h/db",
        "pg://u:hunter2@h:port/db",
        "pg://u:hunter2@h?a=1&a=2",
        "pg://h?password=hunter2&password=hunter2",
        "no-such-bus://u:hunter2@h?token=hunter2",
        "memory:?token=hunter2",
        "null:?token=hunter2",
        "pg:hunter2@h",
    ],
)
def test_no_secret_in_errors(text: str) -> None:
    """Whatever is wrong with a URL, the error shows none of its secrets, not even of a badly written one."""
    with pytest.raises(BusURLError) as caught:
        connect(text)

    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error} {error!r}"
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


@given(st.text("abXY12$&/:@?%é ", min_size=1, max_size=8))
def test_encoded_password(text: str) -> None:
    """Any password, percent-encoded, is read as it was and never shown."""
    password = f"<{text}>"

    url = parse_url(f"pg://u:{quote(password, safe='')}@h/db")

    assert url.password is not None
    assert url.password.reveal() == password
    assert str(url) == "pg://u:***@h/db"


def test_secret_is_never_printed() -> None:
    """A Secret shows ``***`` however it is printed, and is equal to another of the same value only."""
    secret = Secret("hunter2")

    assert {str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret} == {"***"}  # noqa: UP031
    assert repr([secret]) == "[***]"
    assert (secret == Secret("hunter2"), secret == Secret("x"), secret == "hunter2") == (True, False, False)
    assert hash(secret) == hash(Secret("hunter2"))
    assert secret.reveal() == "hunter2"


def test_frozen() -> None:
    """A URL cannot be changed."""
    with pytest.raises(AttributeError):
        parse_url("memory:").scheme = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", Options()),
        ("name=&count=-5&ratio=1&sync=no", Options("", -5, 1.0, False)),
        ("sync", Options(sync=True)),
        ("sync=OFF", Options(sync=False)),
        ("wait-time=250ms", Options(wait_time=0.25)),
        ("wait_time=2m", Options(wait_time=120.0)),
    ],
)
def test_options(query: str, options: Options) -> None:
    """Options are read by the field's type or its own reader; `-` and `_` are alike."""
    assert parse_options(parse_url(f"x:?{query}"), Options) == options


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("coutn=5", "the x bus has no option 'coutn'; did you mean 'count'?"),
        ("zzz=5", "the x bus has no option 'zzz'; known: api_key, count, "),
        ("count=many", "x: option count='many': write a whole number"),
        ("count=1.5", "x: option count='1.5': write a whole number"),
        ("count=" + "9" * 5000, "write a whole number"),
        ("count=1_0", "write a whole number"),
        ("ratio=nan", "x: option ratio='nan': write a number"),
        ("ratio=" + "9" * 400, "write a number"),
        ("sync=perhaps", "x: option sync='perhaps': write true or false"),
        ("wait-time=soon", "x: option wait-time='soon': 'soon' is not a duration"),
    ],
)
def test_wrong_options(query: str, told: str) -> None:
    """A wrong option is named with what was given and what is accepted, an unknown one with the nearest known."""
    with pytest.raises(BusURLError) as caught:
        parse_options(parse_url(f"x:?{query}"), Options)

    assert told in str(caught.value)


@pytest.mark.parametrize("key", ["api-key", "token"])
def test_wrong_secret_options(key: str) -> None:
    """The value of a secret option that cannot be read is not shown, though its reader would."""
    with pytest.raises(BusURLError) as caught:
        parse_options(parse_url(f"x:?{key}=hunter2"), Options)

    assert key in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__suppress_context__


@given(st.sampled_from(["name", "count", "ratio", "sync", "wait-time", "api-key", "token"]), st.text())
def test_any_option(key: str, text: str) -> None:
    """Any text of any option is read or a BusURLError."""
    with contextlib.suppress(BusURLError):
        assert isinstance(parse_options(BusURL("x", options={key: text}), Options), Options)


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("sqllite", ["sqlite", "file"], "; did you mean 'sqlite'?"),
        ("zzz", ["b", "a"], "; known: a, b"),
        ("zzz", [], "; there are none"),
    ],
)
def test_nearest(word: str, known: list[Any], hint: str) -> None:
    """A misspelt word gets the nearest known one, another all of them."""
    assert nearest(word, known) == hint
