"""URLs and options of the nats bus, its names, and the mapping of every error of nats-py."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

pytest.importorskip("nats")

import nats.errors
import nats.js.errors

from bus import BusError, BusURLError, UnauthorisedError, connect
from bus.errors import FullError, NoSuchTopicError
from bus.nats.names import ANCHOR, decode, encode, stream_name, stream_topic
from bus.nats.trouble import MAPPED, api_error, mapped


@pytest.mark.parametrize("module", [nats.errors, nats.js.errors])
def test_every_error_of_the_client_is_mapped(module: object) -> None:
    """Each exception class of nats-py stands in the table itself, not only its base."""
    classes = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, nats.errors.Error)]
    assert len(classes) > 20
    assert [kind for kind in classes if kind not in MAPPED] == []


def test_authorization_is_told_apart() -> None:
    """What the server says about credentials is an UnauthorisedError, whatever class it comes in."""
    assert isinstance(mapped(nats.errors.Error("nats: 'Authorization Violation'"), "x"), UnauthorisedError)
    assert isinstance(mapped(OSError("refused"), "x"), BusError)


def test_answers_of_jetstream_are_mapped() -> None:
    """A full server and a missing stream are told apart."""
    assert isinstance(api_error({"code": 503, "description": "insufficient storage resources"}, "x"), FullError)
    assert isinstance(api_error({"code": 404, "description": "stream not found"}, "x"), NoSuchTopicError)


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1/path",
        "nats://127.0.0.1?leese=1s",
        "nats://127.0.0.1?lease=0s",
        "nats://127.0.0.1?replicas=2",
        "nats://127.0.0.1?prefix=a.b",
        "nats://me:hush@example.com",
        "nats://me:hush@127.0.0.1?token_file=/dev/null",
        "nats://127.0.0.1?password_file=/nowhere",
        "nats://127.0.0.1?ca=/nowhere",
        "nats://127.0.0.1?key=/nowhere",
        "nats://127.0.0.1?creds_file=/nowhere",
    ],
)
def test_bad_urls(url: str) -> None:
    """A wrong option is a BusURLError before anything is sent, and tells no secret."""
    with pytest.raises(BusURLError) as caught:
        connect(url)
    assert "hush" not in str(caught.value)


def test_two_ways_to_log_in(tmp_path: Path) -> None:
    """A user and a token at once are refused."""
    (tmp_path / "token").write_text("t")
    with pytest.raises(BusURLError, match="one way"):
        connect(f"nats://me:hush@127.0.0.1?token_file={tmp_path}/token")


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "a..", "A-b_c.0"])
def test_names_are_reversible(name: str) -> None:
    """Whatever dots a name has, it comes back, and holds none on the server."""
    assert decode(encode(name)) == name
    assert "." not in stream_name("taskbus", name)
    assert stream_topic("taskbus", stream_name("taskbus", name)) == name
    assert encode(name) != ANCHOR
