"""Where alerts are told: a log, a web hook, Slack, e-mail. Only what the rule file names is ever contacted."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from bus import Secret
from taskmasters.rules import Place, RuleTable

__all__ = ["Channel", "How", "Mail", "read_channel"]

#: Bytes of the largest secret read from a file.
_MAX_SECRET = 64 * 1024
_ADDRESS = re.compile(r"[^\s@<>,;\x00-\x1f\x7f]+@[^\s@<>,;\x00-\x1f\x7f]+")


class How(StrEnum):
    """The kinds of channel."""

    LOG = "log"
    WEBHOOK = "webhook"
    SLACK = "slack"
    EMAIL = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """How e-mail is sent. ``security`` is ``starttls``, ``tls`` or ``none``."""

    host: str
    port: int
    security: str
    username: str | None
    password: Secret | None
    sender: str
    to: tuple[str, ...]
    ca_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One place to tell alerts. ``timeout`` is seconds."""

    id: str
    how: How
    #: Of a web hook. The URL itself is a secret: who knows it may post.
    url: Secret | None = None
    token: Secret | None = None
    mail: Mail | None = None
    timeout: float = 10.0
    place: Place = field(default=())

    @property
    def shown(self) -> str:
        """Where it leads, for people, without secrets."""
        if self.url is not None:
            parts = urlsplit(self.url.reveal())
            return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/***"
        if self.mail is not None:
            return f"{', '.join(self.mail.to)} by {self.mail.host}:{self.mail.port} ({self.mail.security})"
        return "the log"


def read_channel(table: RuleTable) -> Channel:
    """One ``[[channel]]``; mistakes are noted in the table."""
    how = How(table.word("kind", list(How), How.LOG))
    if "kind" not in table:
        table.missing("kind", f"one of {', '.join(How)}")
    insecure = table.flag("allow_insecure", False)
    url, token, mail = None, None, None
    if how in (How.WEBHOOK, How.SLACK):
        url = _url(table, insecure)
    if how is How.WEBHOOK:
        token = _secret(table, "token")
    if how is How.EMAIL:
        mail = _mail(table, insecure)
    timeout = table.duration("timeout", 10.0)
    if not timeout:
        table.wrong("timeout", "must be longer than nothing")
    id = table.text("id") or str(how)
    table.finish()
    return Channel(id=id, how=how, url=url, token=token, mail=mail, timeout=timeout, place=table.place)


def _secret(table: RuleTable, key: str) -> Secret | None:
    """A secret given as it is or, better, as the path of a file that holds it."""
    plain, path = table.text(key), table.text(f"{key}_file")
    if plain is not None and path is not None:
        table.wrong(key, f"{key}_file is set as well: set one of the two")
    if plain is not None:
        return Secret(plain)
    if path is None:
        return None
    try:
        body = Path(path).read_bytes()
        if len(body) > _MAX_SECRET:
            table.wrong(f"{key}_file", f"{path} is longer than {_MAX_SECRET} bytes")
            return None
        text = body.decode().strip()
    except OSError as error:
        table.wrong(f"{key}_file", f"cannot read {path}: {error.strerror}")
        return None
    except UnicodeDecodeError:
        table.wrong(f"{key}_file", f"{path} is not UTF-8 text")
        return None
    if not text:
        table.wrong(f"{key}_file", f"{path} is empty")
        return None
    return Secret(text)


def _url(table: RuleTable, insecure: bool) -> Secret | None:
    url = _secret(table, "url")
    if url is None:
        if "url" not in table and "url_file" not in table:
            table.missing("url_file", "the path of a file that holds the URL to post to, or url, that URL")
        return None
    key = "url" if "url" in table else "url_file"
    try:
        parts = urlsplit(url.reveal())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, None
    # What is wrong is told without the URL, which is a secret.
    if not host or parts is None or parts.scheme not in ("http", "https"):
        table.wrong(key, "must be a URL like https://HOST/PATH")
    elif re.search(r"[\x00-\x20\x7f-\U0010ffff]", url.reveal()):
        table.wrong(key, "must have only printable ASCII characters: percent-encode the others")
    elif parts.username is not None:
        table.wrong(key, "must have no user and password in it: use token_file")
    elif parts.scheme == "http" and not (insecure or _is_local(host)):
        table.wrong(key, "is not encrypted: use https://, or say allow_insecure = true")
    return url


def _mail(table: RuleTable, insecure: bool) -> Mail:
    host = table.required("host")
    security = table.word("security", ("starttls", "tls", "none"), "starttls")
    if security == "none" and not (insecure or _is_local(host)):
        table.wrong("security", "mail to another machine would not be encrypted: say allow_insecure = true if so")
    username, password = table.text("username"), _secret(table, "password")
    if (username is None) != (password is None):
        table.missing("password_file" if password is None else "username", "both belong together")
    port = table.number("port", 1) or {"starttls": 587, "tls": 465, "none": 25}[security]
    if port > 65535:
        table.wrong("port", "must be at most 65535")
    ca_file = table.text("ca_file")
    if ca_file is not None and not Path(ca_file).is_file():
        table.wrong("ca_file", f"there is no file {ca_file}")
    sender = table.required("from")
    to = table.texts("to") or ()
    if not to:
        table.missing("to", "the addresses it goes to")
    for key, address in (("from", sender), *(("to", one) for one in to)):
        if address and not _ADDRESS.fullmatch(address):
            table.wrong(key, f"{address!r} is not an address like ops@example.org")
    return Mail(
        host=host,
        port=port,
        security=security,
        username=username,
        password=password,
        sender=sender,
        to=to,
        ca_file=ca_file,
    )


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
