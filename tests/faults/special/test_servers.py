"""What servers do to the applications on them: half a connection freezes, all they stored is gone, nobody is let in."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.support import Odd, publish, task_line
from tests.faults.proxy import Direction
from tests.faults.special.sender import Sender
from tests.faults.special.stage import collect, need_faults, stage
from tests.helpers import wait_until
from tests.nemesis.brokers import serve
from tests.servers import need_servers
from tests.servers.nats import NatsServer
from tests.servers.nsq import Nsqd

pytestmark = pytest.mark.timeout(300)
_SECRET = "canary-5d1e"
#: Whole seconds for which nsqd takes a connection's permission for granted.
_ASKED_AGAIN = 1
_JSON = ("--status-port", "0", "--log-format", "json")


def _need(name: str) -> None:
    need_faults(f"on {name}, part of the long form of the fault suite")


@pytest.mark.slow
@pytest.mark.parametrize("way", list(Direction), ids=lambda way: way.name.lower())
@pytest.mark.parametrize("name", ["nats", "nsq", "kafka", "pubsub"])
def test_a_connection_that_freezes_one_way(name: str, way: Direction, tmp_path: Path) -> None:
    """A worker through whose open connection bytes go one way only is not ready, connects anew, and misses nothing."""
    _need(name)
    (tmp_path / "data").mkdir()
    odd = Odd(tmp_path)
    with (
        serve(name, tmp_path / "data") as served,
        odd.running("--bus", served.url, "--stall-after", "3s", *_JSON) as worker,
    ):
        assert served.proxy is not None
        wait_until(lambda: '"event":"started"' in odd.log, 30)
        publish(served.direct, task_line("", "before"))
        collect(served.direct, "done", 1, quiet=0.0)
        before = served.proxy.accepted
        served.proxy.freeze(way)
        frozen = time.monotonic()
        publish(served.direct, *(task_line("", f"meanwhile-{number}") for number in range(5)))
        wait_until(lambda: odd.ask("readyz")[0] == 503, 60)
        noticed, told = time.monotonic() - frozen, odd.ask("readyz")[1]
        wait_until(lambda: served.proxy is not None and served.proxy.accepted > before, 60)
        again = time.monotonic() - frozen
        served.proxy.heal()
        wait_until(lambda: odd.ask("readyz")[0] == 200, 60)
        done = collect(served.direct, "done", 5, quiet=2.0, limit=90)
        metrics = odd.ask("metrics")[1]
        worker.terminate()

    seen = f"not ready after {noticed:.1f} s, connected anew after {again:.1f} s"
    print(f"{name}, {way.value} frozen: {seen}: {told.strip()}; {len(done)} reports of 5 tasks")
    assert odd.code == 0
    assert {task["id"] for task in done} >= {f"meanwhile-{number}" for number in range(5)}
    assert "taskbus_stalls_total" in metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nats", "nsq", "kafka"])
def test_a_server_that_comes_back_empty(name: str, tmp_path: Path) -> None:
    """Killed, and its data deleted: what was accepted from then on is done, by the processes that were there before."""
    _need(name)
    (tmp_path / "data").mkdir()
    odd = Odd(tmp_path)
    with (
        stage(name, tmp_path / "data") as scene,
        odd.running("--bus", scene.url, *_JSON) as worker,
        Sender(scene.url) as sender,
    ):
        assert scene.server is not None
        wait_until(lambda: '"event":"started"' in odd.log, 30)
        sender.wait_for(50)
        scene.server.kill()
        there = len(sender.accepted)
        for path in (tmp_path / "data").rglob("data*"):
            if path.is_dir():
                shutil.rmtree(path)
                if name == "nsq":
                    path.mkdir()
        scene.server.start()
        sender.wait_for(50)
        sender.stop()
        wait_until(lambda: odd.ask("readyz")[0] == 200, 60)
        later = sender.accepted[there:]
        done = {task["id"] for task in collect(scene.url, "done", len(later), quiet=2.0, limit=90)}
        worker.terminate()

    gone = len(set(sender.accepted[:there]) - done)
    print(f"{name}: {gone} of {there} reports are gone with the server; the sender was told {sender.errors}")
    assert odd.code == 0
    assert set(later) <= done


@contextmanager
def _nats_login(folder: Path) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """A server that asks for a password: its URL, and what lets us in or not."""
    config = folder / "nats.conf"

    def write(password: str) -> None:
        config.write_text(f"authorization {{ user: me, password: {password} }}\n")

    write(_SECRET)
    need_servers()
    with NatsServer(folder, "-c", str(config)).running() as server:

        def admit(ours: bool) -> None:
            write(_SECRET if ours else "another")
            server.reload()

        yield f"nats://me:{_SECRET}@127.0.0.1:{server.port}?lease=1s", admit


@contextmanager
def _nsq_login(folder: Path) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """The same for an nsqd, which asks its auth server again every second."""
    state = {"ours": True}

    class Auth(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            permit = {"topic": ".*", "channels": [".*"], "permissions": ["subscribe", "publish"]}
            body = json.dumps(
                {"ttl": _ASKED_AGAIN, "identity": "us", "authorizations": [permit] if state["ours"] else []}
            ).encode()
            self.send_response(200 if state["ours"] else 403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    auth = HTTPServer(("127.0.0.1", 0), Auth)
    thread = threading.Thread(target=auth.serve_forever)
    thread.start()

    def admit(ours: bool) -> None:
        state.update(ours=ours)
        # Until then a worker that has been let in just before may well do all that it has to do.
        over = time.monotonic() + _ASKED_AGAIN
        wait_until(lambda: time.monotonic() > over)

    try:
        with Nsqd(folder, f"-auth-http-address=127.0.0.1:{auth.server_port}").running() as server:
            yield (
                server.url(auth_secret=_SECRET, plain_auth="true", lease="1s", timeout="3s"),
                admit,
            )
    finally:
        auth.shutdown()
        thread.join()
        auth.server_close()


@contextmanager
def _kafka_login(folder: Path) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """The same for a broker that asks for the password again every two seconds."""
    admin: Any = pytest.importorskip("confluent_kafka.admin")

    from tests.servers.kafka import KafkaServer

    need_servers()
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    server = KafkaServer(
        folder,
        listeners={"LOGIN": "SASL_PLAINTEXT"},
        properties={
            "listener.name.login.sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.login.scram-sha-256.sasl.jaas.config": f"{module} required;",
            "listener.name.login.scram-sha-256.connections.max.reauth.ms": "2000",
        },
        scram=[f"SCRAM-SHA-256=[name=me,password={_SECRET}]"],
    )
    kind = admin.ScramMechanism.SCRAM_SHA_256
    with server.running():

        def admit(ours: bool) -> None:
            change = (
                admin.UserScramCredentialUpsertion("me", admin.ScramCredentialInfo(kind, 4096), _SECRET.encode())
                if ours
                else admin.UserScramCredentialDeletion("me", kind)
            )
            client = admin.AdminClient({"bootstrap.servers": server.address})
            for future in client.alter_user_scram_credentials([change]).values():
                future.result(30)

        options = "partitions=1&sasl=scram-sha-256&session=2s&handover=1s&timeout=3s"
        yield f"kafka://me:{_SECRET}@127.0.0.1:{server.ports['LOGIN']}?{options}", admit


_LOGINS = {"nats": _nats_login, "nsq": _nsq_login, "kafka": _kafka_login}


@pytest.mark.slow
@pytest.mark.parametrize("name", _LOGINS)
def test_a_password_that_is_revoked_for_a_while(name: str, tmp_path: Path) -> None:
    """Worker and sender say that they are refused, and go on when they are let in again; nothing accepted is lost."""
    _need(name)
    (tmp_path / "data").mkdir()
    odd = Odd(tmp_path)
    with (
        _LOGINS[name](tmp_path / "data") as (url, admit),
        odd.running("--bus", url, *_JSON) as worker,
        Sender(url) as sender,
    ):
        wait_until(lambda: '"event":"started"' in odd.log, 30)
        sender.wait_for(50)
        publish(url, task_line("wait:go", "held"))
        odd.begun("wait")
        admit(False)
        told = sender.wait_for_error()
        # What it has done by now cannot be told to anybody.
        (tmp_path / "go").touch()
        wait_until(lambda: odd.ask("readyz")[0] == 503, 60)
        ready = odd.ask("readyz")[1]
        admit(True)
        sender.wait_for(50)
        sender.stop()
        wait_until(lambda: odd.ask("readyz")[0] == 200, 60)
        done = collect(url, "done", len(sender.accepted) + 1, quiet=2.0, limit=90)
        worker.terminate()

    reported = {task["id"] for task in done}
    print(f"{name}: sender told {told!r}, worker {ready.strip()!r}; {len(done) - len(reported)} reported twice")
    assert odd.code == 0
    assert {*sender.accepted, "held"} <= reported
    assert _SECRET not in odd.log + told + ready
