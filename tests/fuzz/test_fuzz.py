"""The short form of ``make fuzz``, and every input that it ever found."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutate import mutate
from tests.fuzz.target import Target, check, fuzz
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
BY_NAME = {target.name: target for target in TARGETS}

#: Inputs that once raised what must not be raised, took too long, or were read in two ways.
FOUND: list[tuple[str, bytes]] = [
    # Seconds for each 20,000 characters, and the square of that: a task's meta may hold a million.
    ("duration", b"9" * 20_000),
    ("duration", b"1_" + b"20" * 10_000),
    ("moment", b"-3__" + b"20" * 10_000),
    ("file-state", b'{"v":1,"inode":1,"position":1,"mark":1,"claims":1,"epoch":"e","pending":[]}\n'),
    (
        "file-state",
        b'{"sent":0,"v":1,"inode":1,"position":39999999999999999999,"mark":1,"claims":1,"epoch":"e","pending":[]}\n',
    ),
    (
        "file-state",
        b'{"sent":0,"v":1,"inode":1,"position":1,"mark":1,"claims":1,"epoch":"e","pending":[[0,1,1,0,"x",[]]]}\n',
    ),
    ("file-topic", b"\xef\xbb\xbf" + b"a\xbf" * 60 + b"\n"),
    ("cron-toml", b'[[rule]]\ncron = "0 5 * * *"\ntype = "t"\ntimezone = "Europe' + b"/Ber" * 2000 + b'"\n'),
    ("files-yaml", b"rule:\n- path: in/*\n  type: t\n  lookback: " + b"9" * 400 + b"\n"),
    ("records", b'["1",2212947004,1,"comple'),
    ("records", b'["1",2212947004,1]'),
    ("records", b'["1",2212947004,1,"of another version","fine",null,false,"2026-01-01T00:00:00Z","x"]'),
    ("nsq-lookup", b"HTTP/1.0 200 OK\r\nDate: Sat, 2" + b"9" * 300 + b" Nov 2026 14:00:00 GMT\r\n\r\n{}"),
    ("nsq-lookup", b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000),
    *(
        (
            "nsq-lookup",
            b'HTTP/1.0 200 OK\r\n\r\n{"producers":[{"broadcast_address":"%b","tcp_port":%b,"http_port":4151}]}' % told,
        )
        for told in (
            (b"h", b"9e999"),
            (b"h", b"70000"),
            (b"h", b"0"),
            (b"not a host", b"4150"),
            (b"[", b"4150"),
            (b"10.0.0.:1", b"4150"),
        )
    ),
    ("nsq-stats", b'{"topics":[{"topic_name":"t"}]}'),
    ("nsq-stats", b'{"topics":[{"channels":[{"channelname":"c"}]}]}'),
    ("nsq-stats", b'"topics"'),
    ("nats-link", b"INFO -1\r\n"),
    ("nats-link", b"INFO " + b"[" * 100_000 + b"\r\n"),
    ("kafka-headers", b"taskbus-id=0:17\ntaskbus-attempt=3\ntaskbus-due=" + b"9" * 400 + b"\ntaskbus-history=[]"),
]


@pytest.mark.parametrize(("name", "data"), FOUND, ids=[f"{name}-{number}" for number, (name, _) in enumerate(FOUND)])
@pytest.mark.timeout(10)
def test_what_was_found_stays_mended(name: str, data: bytes) -> None:
    """It is taken or refused, as any other input."""
    check(BY_NAME[name], data)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_valid_inputs_are_valid(target: Target) -> None:
    """At least one of those that the others are made from is accepted, so that there is something to break."""
    assert any(check(target, seed) for seed in target.seeds)


def test_a_defect_is_found_and_told() -> None:
    """Fuzzing finds a reader that trips over one kind of byte, and says which input it was; the same seed, the same."""

    def read(data: bytes) -> None:
        if b"\0" in data:
            raise IndexError("tripped")
        data.decode()

    target = Target("broken", (b"valid",), read, (UnicodeDecodeError,))
    (finding,) = fuzz(target, 2000, seed=7)

    assert b"\0" in finding.data
    assert "broken: IndexError at" in str(finding)
    assert repr(finding.data) in str(finding)
    assert next(fuzz(target, 2000, seed=7)).number == finding.number


def test_inputs_are_nearly_valid() -> None:
    """Some are as they were given, most differ, and none is the same for every seed."""
    seeds = (b'{"type":"t","task":"x"}',)
    made = Counter(mutate(Random(f"{number}"), seeds) for number in range(500))

    assert len(made) > 300
    assert sum(b'"type"' in data for data in made) > 200


@pytest.mark.slow
def test_short_form() -> None:
    """A few inputs for every target find nothing."""
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", "10000", "--seed", "7"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)

    assert run.returncode == 0, run.stdout + run.stderr
    assert ", 0 findings (seed 7)" in run.stdout
    assert all(name in run.stdout for name in BY_NAME)
