"""Which nsqds there are: those of the URL, or those nsqlookupd knows. And what they tell over HTTP."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

from bus.errors import UnreachableError
from bus.nsq.http import Answer, ask
from bus.nsq.options import Address, NsqOptions, parse_address

__all__ = ["EPHEMERAL", "Nodes"]

#: How the name of a channel that ends with its last reader ends.
EPHEMERAL = "#ephemeral"
_HINT = "; give the HTTP port of the nsqds as http=… in the URL"


class Nodes:
    """The nsqds of one bus."""

    def __init__(self, hosts: tuple[Address, ...], options: NsqOptions, tls: ssl.SSLContext | None) -> None:
        self._hosts = hosts
        self._options = options
        self._tls = tls
        self._known: tuple[Address, ...] = hosts
        self._stale = 0.0
        self._asking: asyncio.Task[tuple[Address, ...]] | None = None
        self._http: dict[Address, str] = {}
        for number, host in enumerate(hosts):
            part = options.http[number if number < len(options.http) else -1] if options.http else str(host[1] + 1)
            if part.isdecimal():
                self._http[host] = _url((host[0], int(part)))
            elif "://" in part:
                self._http[host] = part
            else:
                self._http[host] = _url(parse_address(part, 4151))

    @property
    def changing(self) -> bool:
        """Whether they come and go."""
        return bool(self._options.lookupd)

    async def all(self) -> tuple[Address, ...]:
        """Every nsqd, as known at most ``poll`` ago: nobody who publishes waits for nsqlookupd but the first.

        Raises:
            UnreachableError: no nsqlookupd answers and none has before.
        """
        if self._hosts:
            return self._hosts
        if not self._known:
            return await self.ask()
        now = asyncio.get_running_loop().time()
        if now >= self._stale and (self._asking is None or self._asking.done()):
            self._stale = now + self._options.poll
            self._asking = asyncio.create_task(self.ask(), name="nsq nodes")
            # With nodes known it raises nothing but for an answer that makes no sense, and then they stay known.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._known

    async def ask(self) -> tuple[Address, ...]:
        """Every nsqd that nsqlookupd knows now. Raises as :meth:`all`."""
        return await self._ask("/nodes")

    def doubt(self) -> None:
        """One of them does not answer: ask about them again soon."""
        self._stale = 0.0

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

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
            *(ask(url + path, self._options.timeout, query) for url in urls), return_exceptions=True
        ):
            try:
                if isinstance(answer, BaseException):
                    raise answer
                found |= dict.fromkeys(self._read(answer.found))
            except UnreachableError as error:
                troubles.append(str(error))
        if len(troubles) == len(urls):
            if not self._known:
                raise UnreachableError(f"no nsqlookupd answers: {'; '.join(troubles)}")
            return self._known
        if path == "/nodes":
            # An nsqlookupd that has just been started knows none until they look for it, up to 15 s later. The nsqds
            # known so far will tell whether they are gone.
            self._known = tuple(found) or self._known
            self._stale = asyncio.get_running_loop().time() + self._options.poll
            return self._known
        return tuple(found)

    def _read(self, answer: Any) -> list[Address]:
        found: list[Address] = []
        if answer is None:
            return found
        try:
            for producer in answer["producers"] or []:
                address = (str(producer["broadcast_address"]), int(producer["tcp_port"]))
                url = _url((address[0], int(producer["http_port"])))
                for each in (_url(address), url):
                    parse_address(urlsplit(each).netloc, 0)
                self._http[address] = url
                found.append(address)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UnreachableError("nsqlookupd answers in a way it should not") from None
        return found

    async def command(self, node: Address, path: str, **query: str) -> Answer:
        """POST to one nsqd. Raises UnreachableError."""
        return await ask(
            self._http[node] + path, self._options.timeout, query, method="POST", tls=self._tls, hint=self._hint
        )

    async def config(self, node: Address, name: str) -> Any:
        """The value of one of its options at one nsqd; None if it has none of that name. Raises UnreachableError."""
        url = f"{self._http[node]}/config/{name}"
        return (await ask(url, self._options.timeout, {}, tls=self._tls, hint=self._hint)).found

    async def look(self, node: Address, topic: str | None = None) -> tuple[list[dict[str, Any]], int]:
        """The topics as one nsqd sees them, and its clock in whole seconds. Raises UnreachableError."""
        query = {"format": "json", "include_clients": "false"} | ({} if topic is None else {"topic": topic})
        url = self._http[node] + "/stats"
        answer = await ask(url, self._options.timeout, query, tls=self._tls, hint=self._hint)
        try:
            found = (answer.found or {}).get("topics") or []
            return [entry | {"channels": entry["channels"] or []} for entry in found], answer.date
        except (AttributeError, KeyError, TypeError):
            raise UnreachableError(f"{url} answers in a way it should not") from None

    async def channels(self, node: Address, topic: str) -> dict[str, dict[str, Any]]:
        """The lasting channels of a topic at one nsqd, by name. Raises UnreachableError."""
        found, _ = await self.look(node, topic)
        try:
            channels = {str(channel["channel_name"]): channel for entry in found for channel in entry["channels"]}
        except (KeyError, TypeError):
            raise UnreachableError(f"{self._http[node]} answers in a way it should not") from None
        return {name: channel for name, channel in channels.items() if not name.endswith(EPHEMERAL)}

    async def stats(self, topic: str | None = None) -> list[dict[str, Any]]:
        """The topics as each nsqd sees them. Raises UnreachableError if one does not answer."""
        nodes = await (self.all() if topic is None else self.of(topic))
        answers = await asyncio.gather(*(self.look(node, topic) for node in nodes))
        return [found for answer, _ in answers for found in answer]

    @property
    def _hint(self) -> str:
        return _HINT if self._hosts else ""


def _url(address: Address) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
