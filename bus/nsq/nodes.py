"""Which nsqds there are: those of the URL, or those nsqlookupd knows. And HTTP to ask."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any
from urllib.parse import urlencode, urlsplit

from bus.errors import UnreachableError
from bus.nsq.options import Address, NsqOptions, parse_address

__all__ = ["Nodes", "get_json"]

_LARGEST = 64 * 1024**2


async def get_json(url: str, timeout: float, **query: str) -> Any:
    """GET, as JSON; ``None`` if there is no such thing. Raises UnreachableError."""
    split = urlsplit(url)
    tls = ssl.create_default_context() if split.scheme == "https" else None
    host, port = parse_address(split.netloc, 443 if tls else 80)
    target = f"{split.path or '/'}?{urlencode(query)}"
    # HTTP/1.0: the answer ends with the connection, in one piece.
    request = f"GET {target} HTTP/1.0\r\nHost: {split.netloc}\r\nAccept: application/vnd.nsq; version=1.0\r\n\r\n"
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(request.encode("ascii"))
                answer = bytearray()
                while piece := await reader.read(65536):
                    answer += piece
                    if len(answer) > _LARGEST:
                        raise ValueError("an endless answer")
            finally:
                writer.transport.abort()
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1]
        if status == b"404":
            return None
        if status != b"200":
            raise ValueError(f"status {status.decode('ascii', 'replace')}")
        return json.loads(body)
    except (OSError, ValueError, IndexError) as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else error
        raise UnreachableError(f"{split.scheme}://{split.netloc} does not answer as NSQ does: {why}") from None


class Nodes:
    """The nsqds of one bus."""

    def __init__(self, hosts: tuple[Address, ...], options: NsqOptions) -> None:
        self._hosts = hosts
        self._options = options
        self._known: tuple[Address, ...] = hosts
        self._http: dict[Address, str] = {}
        for number, host in enumerate(hosts):
            if options.http:
                part = options.http[number if number < len(options.http) else -1]
                address = (host[0], int(part)) if part.isdecimal() else parse_address(part, 4151)
                self._http[host] = _url(address)

    @property
    def changing(self) -> bool:
        """Whether they come and go."""
        return bool(self._options.lookupd)

    @property
    def looks(self) -> bool:
        """Whether their HTTP addresses are known or will be."""
        return bool(self._options.lookupd or self._options.http)

    async def all(self) -> tuple[Address, ...]:
        """Every nsqd. Raises UnreachableError if no nsqlookupd answers and none has before."""
        return self._hosts or await self._ask("/nodes")

    async def of(self, topic: str) -> tuple[Address, ...]:
        """Those that have the topic; every one if none has it yet."""
        if self._hosts:
            return self._hosts
        return await self._ask("/lookup", topic=topic) or await self.all()

    async def _ask(self, path: str, **query: str) -> tuple[Address, ...]:
        found: dict[Address, None] = {}
        troubles: list[str] = []
        urls = self._options.lookupd
        for answer in await asyncio.gather(
            *(get_json(url + path, self._options.timeout, **query) for url in urls), return_exceptions=True
        ):
            if isinstance(answer, UnreachableError):
                troubles.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found |= dict.fromkeys(self._read(answer))
        if len(troubles) == len(urls):
            if not self._known:
                raise UnreachableError(f"no nsqlookupd answers: {'; '.join(troubles)}")
            return self._known
        if path == "/nodes":
            self._known = tuple(found)
        return tuple(found)

    def _read(self, answer: Any) -> list[Address]:
        found: list[Address] = []
        try:
            for producer in (answer or {}).get("producers") or []:
                address = (str(producer["broadcast_address"]), int(producer["tcp_port"]))
                self._http[address] = _url((address[0], int(producer["http_port"])))
                found.append(address)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UnreachableError("nsqlookupd answers in a way it should not") from None
        return found

    async def stats(self, topic: str | None = None) -> list[dict[str, Any]]:
        """The topics as each nsqd sees them. Raises UnreachableError if one does not answer."""
        query = {"format": "json", "include_clients": "false"} | ({} if topic is None else {"topic": topic})
        nodes = await (self.all() if topic is None else self.of(topic))
        timeout = self._options.timeout
        answers = await asyncio.gather(*(get_json(self._http[node] + "/stats", timeout, **query) for node in nodes))
        return [found for answer in answers for found in (answer or {}).get("topics") or []]


def _url(address: Address) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
