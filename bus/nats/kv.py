"""A bucket of JetStream, as the clients of NATS keep them: a stream whose subjects are keys.

https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md (buckets) and ADR-43.md (time-to-live).
What is written here can be read with ``nats kv`` and the client libraries, and the other way round.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
from typing import Any

from bus.errors import (
    BusURLError,
    ClosedError,
    TooLargeError,
    UnconfirmedError,
    UnreachableError,
    UnsupportedError,
    WrongRevisionError,
)
from bus.kv.contract import Entry, KeyValue, check_key
from bus.nats import wire
from bus.nats.connection import Answer, Connection, Request
from bus.nats.options import NatsOptions, addresses, security
from bus.nats.trouble import api_error
from bus.url import BusURL, parse_options

__all__ = ["NatsKeyValue"]

_BUCKET = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: Options of a bus URL that say nothing about a bucket.
_OF_A_BUS = ("lease", "prefix")
#: Bytes that headers and subject may take of what the server takes in one message.
_HEADERS = 1024
#: Seconds after which the mark that a key was deleted is gone too.
_MARK = 60
#: JetStream's own numbers: https://github.com/nats-io/nats-server/blob/main/server/errors.json
_NO_MESSAGE, _NO_STREAM = 10037, 10059
_WRONG_SEQUENCE = (10071, 10164)
_TTL_OFF = 10166
#: Values of the header that says that a key is deleted.
_DELETED = ("DEL", "PURGE")
#: The header by which the server says that it deleted a key itself.
_MARKER = "nats-marker-reason"
_NANO = 10**9


class NatsKeyValue(KeyValue):
    """``nats://host:4222/BUCKET``. The bucket is made if it is missing, verified, and never altered."""

    #: The server counts in seconds.
    least_ttl = 1.0

    def __init__(self, url: BusURL) -> None:
        self._bucket = url.path.strip("/")
        if not _BUCKET.fullmatch(self._bucket):
            raise BusURLError("nats: name a bucket of letters, digits, _ and -, as in nats://host:4222/taskbus")
        if wrong := sorted(set(_OF_A_BUS) & {key.replace("-", "_") for key in url.options}):
            raise BusURLError(f"nats: the option {wrong[0]} is for a bus, not for a bucket; leave it out")
        self._options = options = parse_options(url, NatsOptions)
        self._shown = str(url)
        self._stream = f"KV_{self._bucket}"
        self._connection = Connection(addresses(url), security(url, options), options.timeout, options.inbox)
        self._marks_go = self._expires = True
        self._open = False
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        async with self._changing:
            if self._open:
                return
            await self._connection.open()
            try:
                await self._ensure()
            except BaseException:
                await self._connection.disconnect()
                raise
            self._open = True

    async def _ensure(self) -> None:
        """See that the bucket is there and forgets nothing but what it is told to."""
        info = await self._info()
        if info is None:
            wanted = {
                "name": self._stream,
                "subjects": [f"$KV.{self._bucket}.>"],
                "max_msgs_per_subject": 1,
                "discard": "new",
                "storage": "file",
                "num_replicas": self._options.replicas,
                "deny_delete": True,
                "allow_rollup_hdrs": True,
                "allow_direct": True,
                "allow_msg_ttl": True,
                "duplicate_window": 120 * _NANO,
            }
            doing = f"making the bucket {self._bucket}"
            await self._connection.api(f"STREAM.CREATE.{self._stream}", wanted, doing)
            info = await self._info() or {}
        config = info.get("config", {})
        if config.get("max_age"):
            raise BusURLError(
                f"the bucket {self._bucket} forgets everything after {config['max_age'] / _NANO:g} s: it is not "
                "altered; name another, or take its limit of age away with the tools of NATS"
            )
        if config.get("num_replicas", 1) != self._options.replicas and self._options.replicas != 1:
            raise BusURLError(
                f"the bucket {self._bucket} has {config.get('num_replicas', 1)} replicas, not {self._options.replicas}"
                ": it is not altered; change it with the tools of NATS, or leave replicas out"
            )
        self._marks_go = bool(config.get("allow_msg_ttl"))
        # With a history, what stood there before would come back.
        self._expires = self._marks_go and config.get("max_msgs_per_subject") == 1

    async def _info(self) -> dict[str, Any] | None:
        doing = f"looking for the bucket {self._bucket}"
        found = await self._ask(f"STREAM.INFO.{self._stream}", {}, doing)
        return None if _code(found) == _NO_STREAM else self._checked(found, doing)

    async def get(self, key: str) -> Entry | None:
        found = await self._last(key)
        return None if found is None or found[1] else found[0]

    async def _last(self, key: str) -> tuple[Entry, bool] | None:
        """The last message of a key, and whether it says that the key is deleted. Its leader is asked, not a copy."""
        doing = f"reading {check_key(key)} of the bucket {self._bucket}"
        self._check_open()
        subject = f"$KV.{self._bucket}.{key}"
        found = await self._ask(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": subject}, doing)
        if _code(found) == _NO_MESSAGE:
            return None
        message = self._checked(found, doing)["message"]
        fields = _fields(base64.b64decode(message.get("hdrs") or ""))
        deleted = fields.get("kv-operation") in _DELETED or _MARKER in fields
        return Entry(base64.b64decode(message.get("data") or ""), message["seq"]), deleted

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        try:
            return await self._put(key, value, 0, ttl)
        except WrongRevisionError:
            last = await self._last(key)
            if last is not None and not last[1]:
                raise
            # It was deleted, and the mark of that is still there; or has gone meanwhile.
            return await self._put(key, value, last[0].revision if last else 0, ttl)

    async def update(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        return await self._put(key, value, self._positive(key, revision), ttl)

    async def delete(self, key: str, revision: int) -> None:
        fields = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if self._marks_go:
            fields["Nats-TTL"] = str(_MARK)
        await self._publish(key, b"", self._positive(key, revision), fields, "deleting")

    def _positive(self, key: str, revision: int) -> int:
        # To the server, 0 would mean that nothing must stand there.
        if revision < 1:
            raise WrongRevisionError(f"{key} in the bucket {self._bucket} never had the revision {revision}")
        return revision

    async def _put(self, key: str, value: bytes, expected: int, ttl: float | None) -> int:
        fields = {}
        if ttl is not None:
            if not self._expires:
                raise self._no_ttl()
            fields["Nats-TTL"] = str(max(1, math.ceil(ttl)))
        return await self._publish(key, value, expected, fields, "writing")

    async def _publish(self, key: str, value: bytes, expected: int, fields: dict[str, str], how: str) -> int:
        doing = f"{how} {check_key(key)} of the bucket {self._bucket}"
        self._check_open()
        limit = min(self._options.max_size, self._connection.max_payload - _HEADERS)
        if self._connection.connected and len(value) > limit:
            raise TooLargeError(f"{doing}: {len(value)} bytes, the limit is {limit}", size=len(value), limit=limit)
        head = wire.header({"Nats-Expected-Last-Subject-Sequence": str(expected), **fields})
        subject = f"$KV.{self._bucket}.{key}".encode()
        (answer,) = await self._connection.request([Request(subject, value, head)], doing)
        found = self._json(answer, doing)
        if _code(found) in _WRONG_SEQUENCE:
            raise WrongRevisionError(f"{doing}: it was changed by somebody else")
        if _code(found) == _TTL_OFF:
            raise self._no_ttl()
        return int(self._checked(found, doing)["seq"])

    def _no_ttl(self) -> UnsupportedError:
        return UnsupportedError(
            f"the bucket {self._bucket} cannot forget by itself what stands under a key: that needs allow_msg_ttl and "
            "a history of 1; alter it with the tools of NATS, or name another"
        )

    async def _ask(self, what: str, body: dict[str, Any], doing: str) -> dict[str, Any]:
        """What JetStream's API answers, an error included."""
        subject = f"$JS.API.{what}".encode()
        payload = json.dumps(body).encode() if body else b""
        try:
            (answer,) = await self._connection.request([Request(subject, payload)], doing)
        except UnconfirmedError as error:
            # Whether a question was heard is all the same.
            raise UnreachableError(str(error).removesuffix("; it may have been done")) from error
        if answer.status:
            raise UnsupportedError(
                f"{doing}: nats at {self._connection.where} has no JetStream now: start the server with -js"
            )
        return self._json(answer, doing)

    def _json(self, answer: Answer, doing: str) -> dict[str, Any]:
        if answer.status:
            raise UnreachableError(f"{doing}: nats at {self._connection.where} has no such bucket now")
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def _checked(self, found: dict[str, Any], doing: str) -> dict[str, Any]:
        if error := found.get("error"):
            raise api_error(error, doing)
        return found

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError(f"the bucket {self._bucket} is not open")

    async def close(self) -> None:
        async with self._changing:
            if self._open:
                self._open = False
                await self._connection.close()

    def __repr__(self) -> str:
        return f"NatsKeyValue({self._shown!r})"


def _code(found: dict[str, Any]) -> int:
    """JetStream's number of the error in an answer, 0 without one."""
    return int((found.get("error") or {}).get("err_code", 0))


def _fields(head: bytes) -> dict[str, str]:
    """The fields of a header block, by their names in small letters."""
    lines = head.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
