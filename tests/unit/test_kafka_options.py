"""URLs of the Kafka bus: what is refused at the start, what the client library is told, and no secret shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException

from bus import BadNameError, BusURLError, connect, parse_options, parse_url
from bus.errors import BusError, UnauthorisedError, UnconfirmedError, UnreachableError
from bus.kafka.copies import HEADERS, Origin, read_origin, write_origin
from bus.kafka.names import check_user_topic, is_user_topic, retry_group, retry_topic
from bus.kafka.options import KafkaOptions, connection
from bus.kafka.trouble import MAPPED, mapped

_SECRET = "canary-7f3a"


def _given(text: str) -> dict[str, Any]:
    url = parse_url(text)
    return connection(url, parse_options(url, KafkaOptions))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka://h/path", "takes no path"),
        ("kafka://h?partition=3", "did you mean 'partitions'"),
        ("kafka://h?partitions=0", "from 1 to 10000"),
        ("kafka://h?session=1ms", "must be 500ms to 30m"),
        ("kafka://h?protocol=new", "write classic or consumer"),
        ("kafka://h?protocol=share", "share groups .KIP-932. are not supported: .*0015-kafka-without-share-groups.md"),
        ("kafka://h?stall=10s&handover=6s", "half of stall"),
        ("kafka://h?sasl=plain", "needs a user"),
        ("kafka://u@h", "no password"),
        (f"kafka://u:{_SECRET}@h", "allow_insecure"),
        (f"kafka://u:{_SECRET}@127.0.0.1,h", "allow_insecure"),
        (f"kafka://u:{_SECRET}@h?tls=true&sasl=gssapi", "plain, scram-sha-256 or scram-sha-512"),
        (f"kafka://u:{_SECRET}@h?tls=true&password_file=/x", "not both"),
        ("kafka://h?password_file=/x", "needs a user"),
        ("kafka://u@127.0.0.1?password_file=/nowhere/at/all", "cannot be read"),
        ("kafka://h?token_file=/nowhere/at/all", "cannot be read"),
        ("kafka://h?key=/x", "key needs cert"),
        ("kafka://h?cert=/nowhere/at/all", "cannot be read"),
        ("kafka://h?cert=/x&key_password_file=/x", "needs key"),
    ],
)
def test_what_cannot_work_is_refused_at_once(url: str, told: str) -> None:
    """A wrong URL is a BusURLError which says what to write, and shows no secret."""
    with pytest.raises(BusURLError, match=told) as caught:
        connect(url)
    assert _SECRET not in str(caught.value)


def test_ports_and_users() -> None:
    """Hosts without a port get Kafka's; credentials go over TLS, or in the clear to this machine only."""
    assert _given("kafka://a,b:9999,[::1]")["bootstrap.servers"] == "a:9092,b:9999,[::1]:9092"
    assert _given("kafka:")["bootstrap.servers"] == "127.0.0.1:9092"
    assert _given("kafka://h")["security.protocol"] == "PLAINTEXT"
    given = _given(f"kafka://u:{_SECRET}@h?tls=true&sasl=scram-sha-512")
    assert given["security.protocol"] == "SASL_SSL"
    assert given["sasl.mechanisms"] == "SCRAM-SHA-512"
    assert given["sasl.password"] == _SECRET
    assert given["ssl.endpoint.identification.algorithm"] == "https"
    assert _given(f"kafka://u:{_SECRET}@localhost")["security.protocol"] == "SASL_PLAINTEXT"
    assert _given(f"kafka://u:{_SECRET}@h?allow_insecure=true")["security.protocol"] == "SASL_PLAINTEXT"


def test_a_password_from_a_file(tmp_path: Path) -> None:
    """``password_file`` keeps the password out of the URL."""
    (tmp_path / "secret").write_text(f"{_SECRET}\n")
    assert _given(f"kafka://u@localhost?password_file={tmp_path}/secret")["sasl.password"] == _SECRET


def test_a_token_is_read_anew_each_time(tmp_path: Path) -> None:
    """The token comes from its file whenever it is asked for, with the time at which it ends."""
    file = tmp_path / "token"
    for subject, ends in (("a", 2000000000), ("b", 2000000100)):
        claims = base64.urlsafe_b64encode(json.dumps({"sub": subject, "exp": ends}).encode()).decode().rstrip("=")
        file.write_text(f"e30.{claims}.")
        given = _given(f"kafka://localhost?token_file={file}")
        assert given["sasl.mechanisms"] == "OAUTHBEARER"
        assert given["oauth_cb"]("")[1:3] == (ends, subject)
    file.write_text("opaque")
    assert given["oauth_cb"]("")[0] == "opaque"


def test_nothing_shows_a_secret() -> None:
    """Neither the bus nor its URL shows the password."""
    bus = connect(f"kafka://u:{_SECRET}@localhost")
    assert _SECRET not in f"{bus.url} {bus.url!r} {bus!r}"


def test_retry_topics_are_told_apart() -> None:
    """Two pairs of topic and group never share a retry topic, and the group can be read from it."""
    pairs = [("a", "b"), ("a-b", "c"), ("a", "b-c"), ("a-1", "b"), ("x" * 64, "y" * 64)]
    names = [retry_topic(topic, group) for topic, group in pairs]
    assert len(set(names)) == len(pairs)
    for name in names:
        assert len(name) <= 249
        assert not is_user_topic(name)
    for topic, group in pairs:
        assert {retry_group(name, topic) for name in names} >= {group}
    assert retry_group(retry_topic("a", "b-c"), "a-b") is None
    assert retry_group("a", "a") is None


def test_inner_topics_cannot_be_named() -> None:
    """Kafka's own topics and ours are refused."""
    for name in ("__consumer_offsets", retry_topic("a", "b")[:60]):
        with pytest.raises(BadNameError):
            check_user_topic(name)


def test_a_copy_says_what_the_message_was() -> None:
    """Id, attempts, due time and reasons travel in the headers; too many reasons lose the oldest."""
    origin = Origin("3:17", 2, 1234.5, ("first", "zweiter 🚌"))
    assert read_origin(write_origin(origin), "0:0") == origin
    assert read_origin([], "0:0") == Origin("0:0")
    assert read_origin([("taskbus-id", b"x"), ("taskbus-attempt", b"many")], "0:0") == Origin("0:0")
    many = Origin("0:1", 99, 0.0, tuple(f"{number} 🚌" * 500 for number in range(50)))
    headers = write_origin(many)
    assert sum(len(name) + len(value or b"") for name, value in headers) < HEADERS
    kept = read_origin(headers, "").history
    assert kept
    assert kept[-1].startswith("49 ")


@pytest.mark.parametrize("code", sorted(MAPPED))
def test_every_error_is_mapped(code: int) -> None:
    """An error of librdkafka becomes one of ours, with its name, the topic and what was being done."""
    error = mapped(KafkaException(KafkaError(code)), "publishing", "orders")
    assert type(error) is MAPPED[code]
    assert error.topic == "orders"
    assert "publishing" in str(error)


def test_other_errors_are_worth_trying_again() -> None:
    """What is not known is an UnreachableError, and our own errors stay what they are."""
    assert type(mapped(KafkaError(KafkaError._TRANSPORT), "x")) is UnreachableError
    assert type(mapped(KafkaError(KafkaError._MSG_TIMED_OUT), "x")) is UnconfirmedError
    assert type(mapped(ValueError("odd"), "x")) is UnreachableError
    ours: BusError = UnauthorisedError("no")
    assert mapped(ours, "x") is ours
