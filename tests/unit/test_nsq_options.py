"""NSQ URLs, the mapping of errors, and a server that is none."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

pytest.importorskip("nsq")

import bus
from bus import (
    BadNameError,
    BusError,
    BusURLError,
    FullError,
    TooLargeError,
    UnauthorisedError,
    UnreachableError,
    UnsupportedError,
)
from bus.nsq.trouble import explain


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nsq:", "either nsqds or nsqlookupds"),
        ("nsq://h?lookupd=http://l:4161", "either nsqds or nsqlookupds"),
        ("nsq://h/path", "takes hosts and options"),
        ("nsq://me:secret@h", "auth_secret"),
        ("nsq://h:99999", "port"),
        ("nsq://h h", "not an address"),
        ("nsq://h?http=x y", "not an address"),
        ("nsq://h?http=0", "a port is 1 to 65535"),
        ("nsq://h?lease=20m", "over max_lease"),
        ("nsq://h?lease=1ms", "must be"),
        ("nsq://h?max_size=0", "at least 1 byte"),
        ("nsq://h?leese=1s", "did you mean 'lease'"),
        ("nsq://h?auth_secret=hidden", "unencrypted"),
        ("nsq://h?tls_ca=ca.pem", "need tls=true"),
        ("nsq://h?tls=true&tls_ca=/nowhere/ca.pem", "cannot be used"),
        ("nsq:?lookupd=ftp://l", "write http://host:4161"),
        ("nsq://a,b,c?http=a:1,b:2", "as many"),
    ],
)
def test_wrong_urls(url: str, said: str) -> None:
    """A URL that cannot work is refused before anything is opened, saying what to write, without the secret."""
    with pytest.raises(BusURLError) as caught:
        bus.connect(url)
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_capabilities_follow_the_options() -> None:
    """Limits are those given; the secret is masked."""
    plain = bus.connect("nsq://h")
    more = bus.connect("nsq://h?max_lease=1h&max_delay=2h&max_size=4MiB")
    found = bus.connect("nsq:?lookupd=l:4161,https://m:4161&auth_secret=hidden&plain_auth=true")

    assert (plain.capabilities.lease_ceiling, plain.capabilities.publish_delay) == (900.0, 3600.0)
    assert (more.capabilities.lease_ceiling, more.capabilities.publish_delay) == (3600.0, 7200.0)
    assert more.capabilities.max_size == 4 * 1024**2
    assert "hidden" not in f"{found.url} {found.url!r}"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("nsq://127.0.0.1:1", "http://127.0.0.1:2"),
        ("nsq://127.0.0.1:1?http=3", "http://127.0.0.1:3"),
        ("nsq://127.0.0.1:1,127.0.0.1:3?http=127.0.0.1:2,127.0.0.1:2", "http://127.0.0.1:2"),
        ("nsq://127.0.0.1:1?http=https://127.0.0.1:4", "https://127.0.0.1:4"),
    ],
)
def test_without_http_it_is_said_what_to_give(url: str, asked: str) -> None:
    """Where the HTTP port does not answer, depth, topics, groups and listening say which was asked, and the option."""

    async def ask() -> None:
        b = bus.connect(url)
        for look in (b.depth("t", "g"), b.topics(), b.groups("t"), b.consumer("t", None)):
            with pytest.raises(UnreachableError, match=f"{asked} .*http="):
                await look
        await b.close()

    asyncio.run(ask())


def test_without_the_client_library_the_extra_is_named() -> None:
    """Where nsq-py is not installed the error names what to install."""
    code = "import sys; sys.modules['nsq'] = None; import bus; bus.connect('nsq://h')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "bus.errors.MissingExtraError: the nsq bus needs nsq" in done.stderr
    assert "pip install 'taskbus[nsq]'" in done.stderr


def test_the_name_for_what_is_kept_is_no_group() -> None:
    """A group of the name under which messages are kept for the first group is a BadNameError."""

    async def ask() -> None:
        b = bus.connect("nsq://127.0.0.1:1")
        with pytest.raises(BadNameError, match="taskbus-kept"):
            await b.consumer("t", "taskbus-kept")

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"E_BAD_MESSAGE PUB message too big 9 > 4", TooLargeError),
        (b"E_AUTH_FAILED AUTH failed", UnauthorisedError),
        (b"E_AUTH_FIRST AUTH required before PUB", UnauthorisedError),
        (b"E_UNAUTHORIZED AUTH failed for PUB", UnauthorisedError),
        (b"E_AUTH_DISABLED AUTH disabled", UnauthorisedError),
        (b"E_INVALID cannot PUB in current state (TLS required)", UnauthorisedError),
        (b"E_BAD_BODY IDENTIFY msg timeout (9) is invalid", BusURLError),
        (b"E_BAD_TOPIC no", BadNameError),
        (b"E_INVALID DPUB timeout 9 out of range 0-4", UnsupportedError),
        (b"E_PUB_FAILED exiting", FullError),
        (b"E_SOMETHING_NEW", UnreachableError),
        (b"\xff\xfe", UnreachableError),
        (b"", UnreachableError),
    ],
)
def test_errors_are_of_our_tree(data: bytes, kind: type[BusError]) -> None:
    """Every error frame, known or not, becomes an error of the tree that names server and topic."""
    error = explain(data, "h:4150", "t")
    assert type(error) is kind
    assert "h:4150" in str(error)
    assert error.topic == "t"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0\0\0\6\0\0\0\0OK", b"\xff" * 64])
def test_a_server_that_is_no_nsqd(answer: bytes) -> None:
    """Opening it is an UnreachableError, not a hang or a traceback."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            b = bus.connect(f"nsq://127.0.0.1:{port}?timeout=2s")
            with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}"):
                await b.open()
            assert not (await b.health()).ok
            await b.close()

    asyncio.run(run())
