from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from task import Context, Outcome, Worker, complete, status_server
from task.errors import SettingsError
from task.options import WorkerOptions
from task.report import Report
from task.status import Metric, serve_status
from task.worker_app import WorkerApp
from tests.helpers import wait_until

DOCS = Path(__file__).parents[2] / "docs"


class Source:
    """A source whose answers a test sets."""

    def __init__(self) -> None:
        self.works: tuple[bool, str] = (True, "ok")
        self.is_ready: tuple[bool, str] = (False, "starting")
        self.numbers: dict[str, object] = {"received": 3}
        self.samples: list[Metric] = []
        self.gate: threading.Event | None = None

    def statistics(self) -> dict[str, object]:
        if self.gate is not None:
            self.gate.wait(10)
        return self.numbers

    def healthy(self) -> tuple[bool, str]:
        return self.works

    def ready(self) -> tuple[bool, str]:
        return self.is_ready

    def metrics(self) -> Iterable[Metric]:
        return self.samples


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def port(source: Source) -> Iterator[int]:
    with serve_status(source, "127.0.0.1", 0) as found:
        yield found


def ask(
    port: int, path: str, *, method: str = "GET", host: str | None = None, to: str = "127.0.0.1"
) -> tuple[int, str]:
    """The status and body of one request."""
    connection = http.client.HTTPConnection(to, port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def send(port: int, data: bytes, *, end: bool = True) -> bytes:
    """Everything the server sends back for these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return answer


def test_statistics(source: Source, port: int) -> None:
    """The root page is the statistics as JSON; what JSON does not know is text, and nothing is cached or guessed."""
    source.numbers = {"received": 3, "in": Path("a"), "value": "\udce4", "big": 1 << 80}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/?pretty")
    answer = connection.getresponse()

    assert json.loads(answer.read()) == {"received": 3, "in": "a", "value": "\udce4", "big": 1 << 80}
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] == "taskbus"
    connection.close()


def test_health_and_readiness(source: Source, port: int) -> None:
    """Health and readiness are 200 or 503, with the reason as text."""
    assert ask(port, "/healthz") == (200, "ok\n")
    assert ask(port, "/readyz") == (503, "starting\n")

    source.works, source.is_ready = (False, "stuck"), (True, "ok")

    assert ask(port, "/healthz") == (503, "stuck\n")
    assert ask(port, "/readyz") == (200, "ok\n")


def test_metrics(source: Source, port: int) -> None:
    """Samples come out as Prometheus reads them: families together, types right, labels escaped."""
    odd = 'a"b\\c\nd'
    source.samples = [
        Metric("t_total", "counter", "Things\nmade.", 3, {"kind": "a"}),
        Metric("t_seconds_sum", "summary", "Time.", 1.5, {}),
        Metric("t_busy", "gauge", "Busy.", 1, {}),
        Metric("t_total", "counter", "Things\nmade.", 4, {"kind": odd}),
        Metric("t_seconds_count", "summary", "Time.", 2, {}),
    ]
    status, text = ask(port, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    found = {
        name: (family.type, [(sample.name, sample.labels, sample.value) for sample in family.samples])
        for name, family in families.items()
        if name.startswith("t_") or name == "t"
    }

    assert status == 200
    assert found == {
        "t": ("counter", [("t_total", {"kind": "a"}, 3.0), ("t_total", {"kind": odd}, 4.0)]),
        "t_seconds": ("summary", [("t_seconds_sum", {}, 1.5), ("t_seconds_count", {}, 2.0)]),
        "t_busy": ("gauge", [("t_busy", {}, 1.0)]),
    }
    assert text.count("# TYPE t_total counter") == 1
    assert "process_resident_memory_bytes" in families or sys.platform != "linux"


def test_other_paths_and_methods(port: int) -> None:
    """An unknown path is told what there is; every method but GET and HEAD is refused; HEAD has no body."""
    assert ask(port, "/nothing") == (404, "there are /, /healthz, /readyz and /metrics\n")
    assert ask(port, "/healthz", method="HEAD") == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        assert ask(port, "/healthz", method=method)[0] == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:{port}", 200),
        ("[::1]:{port}", 200),
        ("10.0.0.1", 200),
        ("evil.example", 403),
        ("localhost.evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("[evil]:80", 403),
        ("2130706433", 403),
        ("\xff", 403),
    ],
)
def test_host_names(host: str, status: int, port: int) -> None:
    """On a loopback address only our own name or an address is answered, so that no web page can reach us."""
    assert ask(port, "/healthz", host=host.format(port=port))[0] == status


def test_a_probe_without_a_host_name(port: int) -> None:
    """An HTTP/1.0 probe that names no host, or not even a version, is answered: no browser sends such a thing."""
    assert send(port, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 OK\r\n")
    assert send(port, b"GET /healthz\n\n").endswith(b"\r\n\r\nok\n")


def test_any_host_name_on_a_public_address(source: Source) -> None:
    """Whoever listens on a public address is reached by whatever name."""
    with serve_status(source, "0.0.0.0", 0) as port:
        assert ask(port, "/healthz", host="worker-1.cluster.local") == (200, "ok\n")


def test_ipv6(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    """An IPv6 address works, and its URL is written as one."""
    with caplog.at_level(logging.INFO, "taskbus.status"), serve_status(source, "::1", 0) as port:
        assert ask(port, "/healthz", to="::1") == (200, "ok\n")
        assert ask(port, "/healthz", to="::1", host="evil.example")[0] == 403

    assert f"http://[::1]:{port}/" in [getattr(record, "url", None) for record in caplog.records]


def test_port_in_use(port: int, source: Source) -> None:
    """A port somebody listens on is a clear error."""
    with pytest.raises(SettingsError, match=rf"cannot listen on 127.0.0.1 port {port}: Address already in use"):
        serve_status(source, "127.0.0.1", port).__enter__()


@pytest.mark.parametrize(
    ("host", "port"), [("no such host", 0), ("192.0.2.1", 0), ("x" * 300, 0), ("", 0), ("127.0.0.1", 70_000), ("\0", 1)]
)
def test_an_address_that_is_none(host: str, port: int, source: Source) -> None:
    """An address that cannot be listened on is a SettingsError that says what to do."""
    with pytest.raises(SettingsError, match=r"(?s)cannot listen on .*--status-port"):
        serve_status(source, host, port).__enter__()


def test_the_port_is_free_afterwards(source: Source) -> None:
    """After the block nobody listens, and the same port can be taken again at once."""
    with serve_status(source, "127.0.0.1", 0) as port:
        ask(port, "/")
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/")
    with serve_status(source, "127.0.0.1", port) as again:
        assert ask(again, "/healthz") == (200, "ok\n")


def test_a_source_that_raises(source: Source, port: int, caplog: pytest.LogCaptureFixture) -> None:
    """What a source raises goes to the log; the client gets a sentence without any of it, and the port goes on."""
    source.works = None  # type: ignore[assignment]
    with caplog.at_level(logging.WARNING, "taskbus.status"):
        code, text = ask(port, "/healthz")

    assert (code, text) == (500, "this cannot be told right now; the log says why\n")
    assert [getattr(record, "event", None) for record in caplog.records] == ["status-failed"]
    assert ask(port, "/")[0] == 200


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [b"GET", b"HEAD", b" ", b"/", b"/metrics", b"HTTP/1.1", b"HTTP/9", b"\r\n", b"Host:", b"\x00"]
            )
        ).map(b"".join),
    )
)
def test_garbage(port: int, data: bytes) -> None:
    """Whatever bytes come in, the answer is HTTP without a trace of our insides, or nothing, and the port goes on."""
    answer = send(port, data)

    assert answer == b"" or answer.startswith(b"HTTP/1.0 ")
    assert b"Traceback" not in answer
    assert ask(port, "/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    ],
)
def test_a_huge_request(port: int, data: bytes) -> None:
    """A request with too long a head is refused, and the client gets to read that."""
    assert send(port, data).startswith(b"HTTP/1.0 431 ")


def test_a_refused_body_does_not_hide_the_answer(port: int) -> None:
    """The answer to a request with a long body arrives, although nobody reads the body."""
    body = b"a" * 1_000_000
    data = b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + body

    assert send(port, data).startswith(b"HTTP/1.0 405 ")


def test_slow_clients_are_dropped(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that dribbles its request is dropped when its time is up, however often it sends something."""
    monkeypatch.setattr(status_server, "_TIME_LIMIT", 0.3)
    with serve_status(source, "127.0.0.1", 0) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.settimeout(0.01)
        ended = []

        def dribble() -> bool:
            try:
                slow.sendall(b"X")
                ended.append(slow.recv(1) == b"")
            except TimeoutError:
                return False
            except OSError:
                ended.append(True)
            return bool(ended)

        wait_until(dribble)
        assert ended[-1]


def test_a_crowd_of_idle_clients_keeps_nobody_out(source: Source, port: int) -> None:
    """With far more idle connections than are allowed, a probe is answered, and threads do not pile up."""
    before = threading.active_count()
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(3 * status_server._CONNECTIONS)]

    assert ask(port, "/healthz") == (200, "ok\n")
    wait_until(lambda: threading.active_count() <= before + status_server._CONNECTIONS)
    for connection in crowd:
        connection.close()


def test_a_slow_answer_holds_nobody_up(source: Source, port: int) -> None:
    """While one page is being made, another is answered."""
    source.gate = threading.Event()
    answers: list[Any] = []
    slow = threading.Thread(target=lambda: answers.append(ask(port, "/")))
    slow.start()

    assert ask(port, "/healthz") == (200, "ok\n")
    assert answers == []
    source.gate.set()
    slow.join()
    assert answers[0][0] == 200


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    """Knowing the interface loads neither an HTTP server nor the Prometheus client."""
    code = "import sys, task.status; print(sorted({'http.server', 'prometheus_client'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


class Hello(Worker):
    type = "hello"

    def do_task(self, ctx: Context) -> Outcome:
        return complete()


def test_worker_metrics_are_documented() -> None:
    """The table of docs/observing.md names the metrics of a worker, with their kinds and labels, and no others."""
    names: dict[str, tuple[str, set[str]]] = {}
    for metric in Report(WorkerApp(Hello, WorkerOptions())).metrics():
        name = metric.name.removesuffix("_sum").removesuffix("_count") if metric.kind == "summary" else metric.name
        names[name] = (metric.kind, set(metric.labels) - {"task_type"})
    text = (DOCS / "observing.md").read_text().partition("## Metrics")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)

    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == names
