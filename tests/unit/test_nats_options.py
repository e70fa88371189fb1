"""URLs and options of the nats bus, its names, and its errors."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from bus import BusURLError, MissingExtraError, UnauthorisedError, UnreachableError, connect
from bus.errors import BusError, FullError, NoSuchTopicError, UnconfirmedError, UnsupportedError
from bus.nats.login import Login
from bus.nats.names import ANCHOR, decode, encode, stream_name, stream_topic
from bus.nats.trouble import api_error, mapped, server_error
from bus.secret import Secret


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("refused"), UnreachableError),
        (TimeoutError("no answer"), UnreachableError),
        (ssl.SSLCertVerificationError("self-signed"), UnauthorisedError),
        (ssl.SSLError("alert"), UnauthorisedError),
        (FullError("kept"), FullError),
    ],
)
def test_errors_of_connecting(error: Exception, kind: type[BusError]) -> None:
    """What the operating system and TLS raise has a place in our tree."""
    assert type(mapped(error, "connecting")) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Authorization Violation", UnauthorisedError),
        ("User Authentication Expired", UnauthorisedError),
        ("User Authentication Revoked", UnauthorisedError),
        ('Permissions Violation for Publish to "x"', UnauthorisedError),
        ("Secure Connection - TLS Required", BusURLError),
        ("Maximum Payload Violation", BusURLError),
        ("maximum connections exceeded", UnreachableError),
        ("Stale Connection", UnreachableError),
    ],
)
def test_complaints_of_the_server(text: str, kind: type[BusError]) -> None:
    """What a server says after -ERR has one too."""
    assert type(server_error(text, "nats at x")) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 503, "description": "insufficient storage resources"}, FullError),
        ({"code": 400, "err_code": 10077, "description": "maximum messages exceeded"}, FullError),
        ({"code": 404, "description": "stream not found"}, NoSuchTopicError),
        ({"code": 503, "description": "JetStream system temporarily unavailable"}, UnreachableError),
        ({"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"}, UnsupportedError),
        ({"code": 409, "err_code": 10158, "description": "duplicate message id is in process"}, UnconfirmedError),
        ({"code": 429, "err_code": 10167, "description": "too many requests"}, UnreachableError),
        ({"code": 400, "description": "bad request"}, UnsupportedError),
    ],
)
def test_answers_of_jetstream(error: dict[str, object], kind: type[BusError]) -> None:
    """And what JetStream answers."""
    assert type(api_error(error, "x")) is kind


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1/path",
        "nats://127.0.0.1?leese=1s",
        "nats://127.0.0.1?lease=0s",
        "nats://127.0.0.1?replicas=2",
        "nats://127.0.0.1?prefix=a.b",
        "nats://127.0.0.1?inbox=a.*",
        "nats://me:hush@example.com",
        "nats://example.com?token=hush",
        "nats://me:hush@127.0.0.1,example.com",
        "nats://me@127.0.0.1",
        "nats://me:hush@127.0.0.1?token_file=/dev/null",
        "nats://127.0.0.1?token=hush&creds_file=/dev/null",
        "nats://127.0.0.1?password_file=/nowhere",
        "nats://me@127.0.0.1?password_file=/nowhere",
        "nats://127.0.0.1?ca=/nowhere",
        "nats://127.0.0.1?key=/nowhere",
        "nats://127.0.0.1?creds_file=/nowhere",
        "nats://127.0.0.1?creds_file=/dev/null",
    ],
)
def test_bad_urls(url: str) -> None:
    """A wrong option is a BusURLError before anything is sent, and tells no secret."""
    with pytest.raises(BusURLError) as caught:
        connect(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("option", ["nkey_file", "creds_file"])
def test_files_that_hold_something_else(tmp_path: Path, option: str) -> None:
    """A file without a seed is a BusURLError that does not show what it holds."""
    pytest.importorskip("nkeys")
    (tmp_path / "file").write_text("SUhush")
    with pytest.raises(BusURLError, match=option) as caught:
        connect(f"nats://127.0.0.1?{option}={tmp_path}/file")
    assert not isinstance(caught.value, MissingExtraError)
    assert "hush" not in str(caught.value)


def test_unencrypted_secrets_to_another_host_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """``allow_insecure`` permits them, and a warning is logged, without the secret."""
    caplog.set_level(logging.WARNING, "taskbus.bus")
    connect("nats://me:hush@example.com?tls=true")
    assert caplog.text == ""
    connect("nats://me:hush@example.com?allow_insecure=true")
    assert "sent unencrypted" in caplog.text
    assert "hush" not in caplog.text


def test_a_login_shows_no_secret() -> None:
    """Neither password nor token are in its repr."""
    assert "hush" not in repr(Login("me", Secret("hush"), token=Secret("hush")))


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "a..", "A-b_c.0"])
def test_names_are_reversible(name: str) -> None:
    """Whatever dots a name has, it comes back, and holds none on the server."""
    assert decode(encode(name)) == name
    assert "." not in stream_name("taskbus", name)
    assert stream_topic("taskbus", stream_name("taskbus", name)) == name
    assert encode(name) != ANCHOR
