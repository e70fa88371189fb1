"""The round trip with ``nsq-py`` as it comes: a read, a publish and its answer, a FIN; blocking, as it comes."""

from __future__ import annotations

import asyncio
import logging
import sys
from urllib.parse import urlsplit

import orjson
from nsq.client import Client
from nsq.reader import Reader
from nsq.response import Message

from benchmarks.drains import now_text
from benchmarks.round_trip.measure import measured


class _End:
    """Receives from one topic and publishes to another."""

    def __init__(self, address: str, source: bytes, target: bytes) -> None:
        self._reader = Reader(source, b"trip", nsqd_tcp_addresses=[address], max_in_flight=1)
        self._client = Client(nsqd_tcp_addresses=[address])
        self._target = target

    def receive(self) -> Message:
        while True:
            for each in self._reader.read():
                if isinstance(each, Message):
                    return each

    def publish(self, body: bytes) -> None:
        self._client.pub(self._target, body)

    def finish(self, message: Message) -> None:
        message.fin()
        for connection in self._reader.connections():
            self._reader.wait_write(connection)


def answer(address: str) -> None:
    """Do tasks until killed."""
    end = _End(address, b"trip-todo", b"trip-done")
    while True:
        message = end.receive()
        task = orjson.loads(message.body)
        task |= {"started": now_text(), "result": "complete", "msg": "", "completed": now_text()}
        end.publish(orjson.dumps(task))
        end.finish(message)


def ask(address: str, count: int) -> None:
    """Print the percentiles of ``count`` trips."""
    end = _End(address, b"trip-done", b"trip-todo")

    async def trip(body: bytes) -> None:
        end.publish(body)
        end.finish(end.receive())

    print(*asyncio.run(measured(trip, count)))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    where = urlsplit(sys.argv[2]).netloc
    if sys.argv[1] == "answer":
        answer(where)
    else:
        ask(where, int(sys.argv[3]))
