"""The round trip with bare ``confluent-kafka``: a poll, a confirmed produce, a commit; blocking, as it comes.

Each delivery is counted by a commit before anything is done with it, as the bus does.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

import orjson
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.drains import now_text
from benchmarks.round_trip.measure import measured

_TODO, _DONE = "trip-todo", "trip-done"


def answer(servers: str) -> None:
    """Do tasks until killed."""
    consumer, producer = _consumer(servers, _TODO), _producer(servers)
    while True:
        message, body = _receive(consumer)
        task = orjson.loads(body)
        task |= {"started": now_text(), "result": "complete", "msg": "", "completed": now_text()}
        producer.produce(_DONE, orjson.dumps(task))
        producer.flush()
        consumer.commit(message=message, asynchronous=False)


def ask(servers: str, count: int) -> None:
    """Print the percentiles of ``count`` trips."""
    consumer, producer = _consumer(servers, _DONE), _producer(servers)

    async def trip(body: bytes) -> None:
        producer.produce(_TODO, body)
        producer.flush()
        message, _ = _receive(consumer)
        consumer.commit(message=message, asynchronous=False)

    print(*asyncio.run(measured(trip, count)))
    consumer.close()


def _receive(consumer: Consumer) -> tuple[Message, bytes]:
    while True:
        message = consumer.poll(1.0)
        # An error tells of a topic that is just being made.
        if message is not None and message.error() is None and (body := message.value()) is not None:
            at = TopicPartition(message.topic() or "", message.partition() or 0, message.offset() or 0, metadata="1")
            consumer.commit(offsets=[at], asynchronous=False)
            return message, body


def _consumer(servers: str, topic: str) -> Consumer:
    topics = [NewTopic(name, 1, 1) for name in (_TODO, _DONE)]
    admin = AdminClient({"bootstrap.servers": servers})  # its futures end with it
    for future in admin.create_topics(topics).values():
        try:
            future.result()
        except KafkaException:  # the other process made it at the same moment
            continue
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": topic,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    return consumer


def _producer(servers: str) -> Producer:
    return Producer({"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0})


if __name__ == "__main__":
    where = urlsplit(sys.argv[2]).netloc
    if sys.argv[1] == "answer":
        answer(where)
    else:
        ask(where, int(sys.argv[3]))
