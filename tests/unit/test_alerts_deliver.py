"""Telling an alert to a real HTTP server and a real SMTP server."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from bus import Secret
from taskmasters.alerts.channels import Channel, How, Mail
from taskmasters.alerts.deliver import DeliveryError, deliver
from tests.receivers import Mailbox, certificate, hook, mailbox

TOLD: dict[str, Any] = {
    "id": "notice-1",
    "rule": "r",
    "time": "2026-01-02T03:04:05.000Z",
    "count": 1,
    "groups": [
        {
            "type": "load",
            "job": "daily",
            "kind": "alert",
            "count": 1,
            "first": "2026-01-02T03:04:05.000Z",
            "last": "2026-01-02T03:04:05.000Z",
            "moments": ["2026-01-01T00:00:00"],
            "examples": [
                {"id": "t1", "task": "s3://b/x", "msg": "größer\n.\nas expected", "time": "2026-01-02T03:04:05Z"}
            ],
        }
    ],
}


def web(url: str, how: How = How.WEBHOOK, token: str | None = None, timeout: float = 5.0) -> Channel:
    return Channel(id="c", how=how, url=Secret(url), token=Secret(token) if token else None, timeout=timeout)


def test_webhook() -> None:
    """JSON with everything, the id of the notice for whoever looks for repetitions, the token as a bearer."""
    with hook() as server:
        deliver(web(server.url, token="canary-token"), TOLD)
    (posted,) = server.posted
    assert posted.path == "/canary"
    assert posted.body["groups"] == TOLD["groups"]
    assert "load:daily: 1 alert" in posted.body["text"]
    assert posted.headers["Content-Type"] == "application/json"
    assert posted.headers["Idempotency-Key"] == "notice-1"
    assert posted.headers["Authorization"] == "Bearer canary-token"


def test_slack() -> None:
    """A text, and nothing else."""
    with hook() as server:
        deliver(web(server.url, How.SLACK), TOLD)
    (posted,) = server.posted
    assert posted.body.keys() == {"text"}
    assert posted.body["text"].startswith("1 alert load:daily\n```\n")
    assert "Authorization" not in posted.headers


@pytest.mark.parametrize(("code", "said"), [(500, "500 Internal Server Error"), (404, "404 Not Found"), (403, "403")])
def test_an_answer_that_is_no_yes(code: int, said: str) -> None:
    """It is told with its number; the URL is not."""
    with hook() as server:
        server.answers = [code]
        with pytest.raises(DeliveryError) as caught:
            deliver(web(server.url, token="canary-token"), TOLD)
    assert f"http://127.0.0.1:{server.port}/*** answered {said}" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code: int) -> None:
    """Neither the alert nor the token goes anywhere but where the file says."""
    with hook() as server, hook() as other:
        server.answers, server.location = [code], other.url
        with pytest.raises(DeliveryError, match=f"answered {code}"):
            deliver(web(server.url, token="canary-token"), TOLD)
        assert other.posted == []


def test_the_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would get the URL and the token."""
    with hook() as server, hook() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        deliver(web(server.url), TOLD)
        assert len(server.posted) == 1
        assert proxy.posted == []


def test_a_server_that_hangs() -> None:
    """It is given up after the timeout."""
    with hook() as server:
        server.hanging = True
        with pytest.raises(DeliveryError, match="timed out"):
            deliver(web(server.url, timeout=0.2), TOLD)


def test_nobody_there() -> None:
    """The error tells the host and not the path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(DeliveryError) as caught:
            deliver(web(f"http://127.0.0.1:{port}/canary"), TOLD)
    assert "Connection refused" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_server_that_speaks_nonsense() -> None:
    """No error of the client leaves this module."""
    import threading

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"canary nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DeliveryError) as caught:
            deliver(web(f"http://127.0.0.1:{server.getsockname()[1]}/canary"), TOLD)
        thread.join()
    assert "canary" not in str(caught.value)


def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One record with all of it."""
    with caplog.at_level(logging.ERROR, "taskbus.alerts"):
        deliver(Channel(id="log", how=How.LOG), TOLD)
    (record,) = caplog.records
    assert "load:daily: 1 alert" in record.getMessage()
    assert record.__dict__["event"] == "alert"


def post_box(server: Mailbox, security: str, *, ca: Path | None = None, password: str | None = None) -> Channel:
    mail = Mail(
        host="localhost" if ca else "127.0.0.1",
        port=server.port,
        security=security,
        username="taskbus" if password else None,
        password=Secret(password) if password else None,
        sender="taskbus@example.org",
        to=("ops@example.org", "dev@example.org"),
        ca_file=str(ca) if ca else None,
    )
    return Channel(id="mail", how=How.EMAIL, mail=mail, timeout=5.0)


def test_mail() -> None:
    """A plain text to everybody, marked as made by a program."""
    with mailbox() as server:
        deliver(post_box(server, "none"), TOLD)
    (mail,) = server.mails
    assert mail["Subject"] == "[taskbus] 1 alert load:daily"
    assert mail["From"] == "taskbus@example.org"
    assert mail["To"] == "ops@example.org, dev@example.org"
    assert mail["Message-ID"] == "<notice-1@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "größer . as expected" in str(mail.get_payload(decode=True), "utf-8")  # type: ignore[arg-type]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_encrypted_mail_with_a_password(tmp_path: Path, security: str) -> None:
    """The password is sent only encrypted, and to a server whose certificate is right."""
    ca = certificate(tmp_path)
    folders = {"starttls": tmp_path} if security == "starttls" else {"tls": tmp_path}
    with mailbox(login=True, **folders) as server:
        deliver(post_box(server, security, ca=ca, password="canary-right"), TOLD)
        assert server.encrypted == [True]
        assert (b"taskbus", b"canary-right") in server.logins
        with pytest.raises(DeliveryError) as caught:
            deliver(post_box(server, security, ca=ca, password="canary-wrong"), TOLD)
        assert "answered 535" in str(caught.value)
        assert "canary" not in str(caught.value)


def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    """The password is not sent."""
    certificate(tmp_path)
    with mailbox(starttls=tmp_path, login=True) as server:
        channel = post_box(server, "starttls", password="canary-right")
        with pytest.raises(DeliveryError, match="certificate verify failed"):
            deliver(channel, TOLD)
        assert server.logins == []


def test_a_server_without_starttls() -> None:
    """It is not told anything in the clear instead."""
    with mailbox() as server:
        with pytest.raises(DeliveryError, match="STARTTLS"):
            deliver(post_box(server, "starttls"), TOLD)
        assert server.mails == []


def test_a_mail_server_that_refuses() -> None:
    """With what it said."""
    with mailbox() as server:
        server.refuse = "451 try again later"
        with pytest.raises(DeliveryError, match="answered 451 try again later"):
            deliver(post_box(server, "none"), TOLD)


def test_a_type_cannot_add_headers() -> None:
    """Control characters in a task's type do not get into the subject."""
    told = json.loads(json.dumps(TOLD))
    told["groups"][0]["type"] = "x\r\nBcc: victim@example.org"
    with mailbox() as server:
        deliver(post_box(server, "none"), told)
    (mail,) = server.mails
    assert mail["Bcc"] is None
