"""URLs, options, names, requests and errors of the pubsub bus."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("google.pubsub_v1")

from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st

from bus import BusURLError, Durability, Message, Order, UnauthorisedError, UnreachableError, connect, parse_url
from bus.pubsub.names import Names, decode_labels, encode_labels
from bus.pubsub.options import read_options
from bus.pubsub.producer import chains
from bus.pubsub.trouble import MAPPED, failed, mapped, refused_ids

_OUR_NAMES = st.from_regex(r"[.a-zA-Z0-9_-]{1,64}", fullmatch=True)
_NAMES = Names("project", "taskbus")


@pytest.fixture(autouse=True)
def _without_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("pubsub:", "needs the id of one project"),
        ("pubsub:project", "needs the id of one project"),
        ("pubsub://", "needs the id of one project"),
        ("pubsub://one,two", "needs the id of one project"),
        ("pubsub://project/path", "needs the id of one project"),
        ("pubsub://me@project", "needs the id of one project"),
        ("pubsub://project:8085", "needs the id of one project"),
        ("pubsub://Project", "needs the id of one project"),
        ("pubsub://project?leese=1s", "did you mean 'lease'"),
        ("pubsub://project?json_auth={}", "no option 'json_auth'"),
        ("pubsub://project?lease=0s", "whole seconds, 1s to 10m"),
        ("pubsub://project?lease=1500ms", "whole seconds"),
        ("pubsub://project?lease=11m", "whole seconds"),
        ("pubsub://project?max_attempts=4", "write 5 to 100, or 0"),
        ("pubsub://project?max_attempts=101", "write 5 to 100, or 0"),
        ("pubsub://project?max_attempts=x", "write 5 to 100, or 0"),
        ("pubsub://project?retention=5m", "10m to 31d"),
        ("pubsub://project?retention=32d", "10m to 31d"),
        ("pubsub://project?prefix=1a", "with a letter first"),
        ("pubsub://project?prefix=google", "not goog"),
        ("pubsub://project?prefix=a~b", "letters, digits, - and _"),
        ("pubsub://project?max_size=10MiB", "9.5MiB"),
        ("pubsub://project?max_size=0", "9.5MiB"),
        ("pubsub://project?timeout=0s", "100ms to 10m"),
        ("pubsub://project?endpoint=europe", "write host:port"),
        ("pubsub://project?emulator=here", "write host:port"),
        ("pubsub://project?emulator=true", "needs PUBSUB_EMULATOR_HOST"),
        ("pubsub://project?emulator=localhost:1&endpoint=h:443", "give one of them"),
    ],
)
def test_bad_urls(url: str, says: str) -> None:
    """A wrong option is a BusURLError before anything is sent, and says what to write."""
    with pytest.raises(BusURLError) as caught:
        connect(url)
    assert says in str(caught.value)


def test_an_emulator_only_where_the_url_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable alone is refused, as neither using nor ignoring it is safe; the URL decides."""
    assert read_options(parse_url("pubsub://project"))[1].emulator is None
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(BusURLError, match=r"127\.0\.0\.1:1 is set, but the URL does not ask for an emulator"):
        connect("pubsub://project")
    assert read_options(parse_url("pubsub://project?emulator=false"))[1].emulator is None
    for text in ("emulator=true", "emulator"):
        assert read_options(parse_url(f"pubsub://project?{text}"))[1].emulator == "127.0.0.1:1"
    assert read_options(parse_url("pubsub://project?emulator=[::1]:2"))[1].emulator == "[::1]:2"
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "nonsense")
    with pytest.raises(BusURLError, match="'nonsense' is not the address of an emulator"):
        connect("pubsub://project?emulator=true")


def test_what_options_change_is_declared() -> None:
    """An emulator keeps nothing, order is an option, and attempts are not counted without a dead-letter policy."""
    plain = connect("pubsub://project").capabilities
    assert (plain.durability, plain.order, plain.attempts) == (Durability.D4, Order.NONE, True)
    odd = connect("pubsub://project?emulator=h:1&ordering=true&max_attempts=0&max_size=1KiB").capabilities
    assert (odd.durability, odd.order, odd.attempts) == (Durability.D0, Order.KEY, False)
    assert (odd.release_counts, odd.max_size) == (False, 1024)


def test_the_client_library_is_imported_only_when_used() -> None:
    """``import bus`` brings in neither gRPC nor anything of Google's; the URL does."""
    code = (
        "import sys, bus; assert not [n for n in sys.modules if n.split('.')[0] in ('grpc', 'google')];"
        "bus.connect('pubsub://project'); assert 'grpc' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@given(_OUR_NAMES, _OUR_NAMES)
def test_names_are_reversible_and_never_meet(topic: str, group: str) -> None:
    """Topics and groups of any names we allow are ids of Pub/Sub, lead back, and two never share one."""
    assert _NAMES.topic_of(_NAMES.topic(topic)) == topic
    assert _NAMES.topic_of(_NAMES.note(topic)) is None
    assert _NAMES.group_of(topic, _NAMES.first(topic)) == ""
    assert _NAMES.group_of(topic, _NAMES.group(topic, group)) == group
    assert _NAMES.group_of(topic, _NAMES.broadcast(topic)) is None
    assert _NAMES.group_of(topic + "x", _NAMES.group(topic, group)) is None
    ids = [name.rpartition("/")[2] for name in (_NAMES.note(topic), _NAMES.group(topic, group))]
    assert all(3 <= len(id) <= 255 and not id.startswith("goog") for id in ids)


def test_names_of_others() -> None:
    """What stands beside ours in the project is none of ours."""
    assert _NAMES.topic_of("projects/project/topics/other-topic") is None
    assert _NAMES.group_of("t", "projects/project/subscriptions/other") is None
    assert _NAMES.group_of("t", "projects/other/subscriptions/taskbus-t~g") is None


@given(_OUR_NAMES)
def test_labels_hold_any_group(group: str) -> None:
    """Labels keep to the rules of Google Cloud, and lead back."""
    labels = encode_labels(group)
    assert decode_labels(labels | {"epoch": "0"}) == group
    assert len(labels) <= 4
    for value in labels.values():
        assert 1 <= len(value) <= 63
        assert set(value) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def test_every_status_is_mapped() -> None:
    """Each status of gRPC is an error of ours that says what was done, where, and what the server said."""
    assert set(MAPPED) == set(StatusCode)
    for code, kind in MAPPED.items():
        error = mapped(code, "because", "doing it", "t")
        assert type(error) is kind
        assert error.topic == "t"
        assert str(error).startswith("doing it: because")
    assert "deadline exceeded" in str(mapped(StatusCode.DEADLINE_EXCEEDED, "", "x"))


def test_a_token_that_cannot_be_had_is_about_credentials() -> None:
    """gRPC says UNAVAILABLE when it could not get a token; whoever reads that must look at the credentials."""
    error = mapped(StatusCode.UNAVAILABLE, "Getting metadata from plugin failed with error: expired", "x")
    assert isinstance(error, UnauthorisedError)
    assert "Application Default Credentials" in str(error)


def test_anything_else_means_nobody_was_reached() -> None:
    """Whatever the client libraries raise beside a status is an error of ours; one of ours stays what it is."""
    assert isinstance(failed(OSError("no route"), "x"), UnreachableError)
    known = BusURLError("known")
    assert failed(known, "x") is known


def test_refused_ids_are_read() -> None:
    """The ids in the details of a status are found, and no other detail is taken for one."""
    info = ErrorInfo(
        reason="EXACTLY_ONCE_ACKID_FAILURE",
        metadata={"a": "PERMANENT_FAILURE_INVALID_ACK_ID", "b": "TRANSIENT_FAILURE_UNORDERED_ACK_ID", "c": "d"},
    )
    detail = Any()
    detail.Pack(info)
    other = Any()
    other.Pack(Status(code=1))
    raw = Status(code=3, details=[other, detail]).SerializeToString()
    error = AioRpcError(
        StatusCode.INVALID_ARGUMENT, Metadata(), Metadata(("x", "y"), ("grpc-status-details-bin", raw)), "some failed"
    )
    assert refused_ids(error) == {"a": "PERMANENT_FAILURE_INVALID_ACK_ID", "b": "TRANSIENT_FAILURE_UNORDERED_ACK_ID"}
    assert refused_ids(AioRpcError(StatusCode.INVALID_ARGUMENT, Metadata(), Metadata(), "x")) == {}
    assert refused_ids(OSError()) == {}


def test_requests_are_filled_and_bounded() -> None:
    """A request has one topic, at most 1,000 messages and about a mebibyte; order chains those of one key."""
    many = [Message("a" if number % 2 else "b", b"x", key=None) for number in range(5000)]
    found = chains(many, False)
    assert sorted(len(batch) for chain in found for batch in chain) == [500, 500, 1000, 1000, 1000, 1000]
    assert all(len(chain) == 1 for chain in found)
    assert all(len({message.topic for message in batch}) == 1 for chain in found for batch in chain)
    large = [Message("a", b"x" * 600_000, key="k") for _ in range(4)]
    assert [len(chain) for chain in chains(large, False)] == [1, 1, 1, 1]
    assert [[len(batch) for batch in chain] for chain in chains(large, True)] == [[1, 1, 1, 1]]
    keyed = [Message("a", b"%d" % number, key=str(number % 3)) for number in range(3000)]
    assert [[len(batch) for batch in chain] for chain in chains(keyed, True)] == [[1000], [1000], [1000]]
    assert [message.body for message in chains(keyed, True)[1][0]] == [b"%d" % n for n in range(1, 3000, 3)]
