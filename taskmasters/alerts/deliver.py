"""Telling one alert to one channel. Blocking: called from threads."""

from __future__ import annotations

import contextlib
import http.client
import logging
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

import orjson

from task.errors import TaskError
from taskmasters.alerts.channels import Channel, How, Mail
from taskmasters.alerts.words import headline, slack, text

__all__ = ["DeliveryError", "deliver"]

_log = logging.getLogger("taskbus.alerts")
#: Bytes of an answer that are read.
_ANSWER = 4096


class DeliveryError(TaskError):
    """An alert could not be told. The text shows no secret."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """An alert goes where the rule file says, and nowhere else."""


def deliver(channel: Channel, told: Mapping[str, Any]) -> None:
    """Tell it, and return when the other side has taken it.

    Raises:
        DeliveryError: if it did not.
    """
    if channel.how is How.LOG:
        _write(told)
    elif channel.how is How.EMAIL and channel.mail is not None:
        _send(channel.mail, told, channel.timeout)
    else:
        _post(channel, told)


def _write(told: Mapping[str, Any]) -> None:
    fields = {"event": "alert", "rule": told["rule"], "count": told["count"], "notice": told["id"]}
    _log.error("%s\n%s", headline(told), text(told), extra=fields)


def _post(channel: Channel, told: Mapping[str, Any]) -> None:
    url = channel.url.reveal() if channel.url else ""
    payload = slack(told) if channel.how is How.SLACK else {**told, "text": text(told)}
    headers = {"Content-Type": "application/json", "User-Agent": "taskbus", "Idempotency-Key": str(told["id"])}
    if channel.token is not None:
        headers["Authorization"] = f"Bearer {channel.token.reveal()}"
    # The schemes were checked when the rule file was read.
    request = urllib.request.Request(url, orjson.dumps(payload), headers, method="POST")  # noqa: S310
    # Neither redirects nor the proxies of the environment.
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=channel.timeout) as answer:
            answer.read(_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            raise DeliveryError(
                f"{channel.shown} answered {error.code} {_REASONS.get(error.code, '')}".rstrip()
            ) from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise DeliveryError(f"{channel.shown}: {_plain(reason)}") from None
    except (http.client.HTTPException, ValueError) as error:
        # Their texts may show the URL.
        raise DeliveryError(f"{channel.shown}: {type(error).__name__}") from None


_REASONS = {int(code): text for code, text in http.client.responses.items()}


def _send(mail: Mail, told: Mapping[str, Any], timeout: float) -> None:
    message = EmailMessage()
    message["Subject"] = f"[taskbus] {headline(told)}"[:200]
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.to)
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{told['id']}@{mail.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text(told), cte="quoted-printable")  # which every server takes
    shown = f"{mail.host}:{mail.port}"
    try:
        with contextlib.ExitStack() as stack:
            server = _connect(mail, timeout)
            stack.callback(server.close)
            if mail.security == "starttls":
                server.starttls(context=_context(mail))
            if mail.username is not None and mail.password is not None:
                server.login(mail.username, mail.password.reveal())
            refused = server.send_message(message)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()
    except smtplib.SMTPResponseException as error:
        raise DeliveryError(f"{shown} answered {error.smtp_code} {_plain(error.smtp_error)}") from None
    except smtplib.SMTPRecipientsRefused as error:
        raise DeliveryError(f"{shown} refused {', '.join(sorted(error.recipients))}") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise DeliveryError(f"{shown}: {_plain(error)}") from None
    if refused:
        # The others have it; sending it to them again would not help these.
        _log.error("%s refused %s", shown, ", ".join(sorted(refused)), extra={"event": "alert-refused"})


def _connect(mail: Mail, timeout: float) -> smtplib.SMTP:
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=timeout, context=_context(mail))
    return smtplib.SMTP(mail.host, mail.port, timeout=timeout)


def _context(mail: Mail) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=mail.ca_file)


def _plain(error: object) -> str:
    told = error.decode("utf-8", "replace") if isinstance(error, bytes) else str(error)
    return " ".join(told.split())[:300] or type(error).__name__
