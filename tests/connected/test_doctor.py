"""The doctor at real servers: what they tell, on set-ups that are good and bad."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from apps.doctor.asked import Asked, prepare
from apps.doctor.gather import gather
from apps.doctor.registry import examine
from apps.doctor.setup import Setup
from bus import connect
from tests.servers.nats import nats_server
from tests.servers.nsq import Nsqd
from tests.servers.process import free_port


def look(url: str, **more: Any) -> Setup:
    monitor = more.pop("monitor", None)
    return asyncio.run(gather(prepare(Asked(target=url, kind="t", **more)), interval=0, monitor=monitor))


def severities(setup: Setup) -> dict[str, list[str]]:
    return {check.name: [str(finding.severity) for finding in found] for check, found in examine(setup)}


async def use(url: str) -> None:
    """Make topic and group, and leave a task."""
    async with connect(url) as bus, await bus.consumer("t", "t"), await bus.producer() as producer:
        await producer.publish("t", b'{"type":"t","task":"x"}')


async def api(url: str, subject: str, body: dict[str, Any]) -> None:
    """One request of the administrator."""
    async with connect(url) as bus:
        await bus._connection.api(subject, body, "setting it up")  # type: ignore[attr-defined]


def test_nats_as_it_comes(tmp_path: Path) -> None:
    """A server with its defaults syncs late, and has one replica; nothing else is wrong with it."""
    port = free_port()
    with nats_server(tmp_path, "-m", str(port)) as server:
        before = severities(look(server.url))
        asyncio.run(use(server.url))
        setup = look(server.url, monitor=f"http://127.0.0.1:{port}")
        without = severities(look(server.url))

    found = severities(setup)
    assert found["nats-sync"] == ["warning"]
    assert found["nats-replicas"] == ["note"]
    assert found["nats-stream"] == found["nats-consumer"] == found["clock"] == found["lease-short"] == []
    assert setup.queues is not None
    assert setup.queues[0].second.total == 1
    assert without["nats-sync"] == ["unchecked"]
    assert before["nats-replicas"] == before["nats-consumer"] == ["unchecked"]


def test_nats_set_up_badly(tmp_path: Path) -> None:
    """A stream that forgets, in memory, with a consumer that gives up and holds back; a server that syncs."""
    port = free_port()
    config = tmp_path / "server.conf"
    config.write_text(f'http: 127.0.0.1:{port}\njetstream {{ store_dir: "{tmp_path}/store", sync_interval: always }}\n')
    stream = {"name": "taskbus-t", "subjects": ["taskbus.t"], "storage": "memory", "max_age": 60 * 10**9}
    consumer = {"durable_name": "t", "ack_policy": "explicit", "max_deliver": 5, "max_ack_pending": 10}
    with nats_server(tmp_path, "-c", str(config), jetstream=False) as server:
        asyncio.run(api(server.url, "STREAM.CREATE.taskbus-t", stream))
        create = {"stream_name": "taskbus-t", "config": consumer, "action": "create"}
        asyncio.run(api(server.url, "CONSUMER.CREATE.taskbus-t.t", create))
        found = severities(look(server.url, monitor=f"http://127.0.0.1:{port}"))

    assert found["nats-sync"] == []
    assert found["nats-stream"] == ["problem"] * 4  # storage, discard, retention and max_age
    assert sorted(found["nats-consumer"]) == ["problem", "warning"]


def test_a_wrong_monitor_is_no_monitor(tmp_path: Path) -> None:
    """An address at which no NATS server tells anything leaves the check unmade, and says why."""
    with nats_server(tmp_path) as server:
        setup = look(server.url, monitor="http://127.0.0.1:1")

    (made,) = [made for made in examine(setup) if made.check.name == "nats-sync"]
    assert "127.0.0.1:1 does not answer" in made.findings[0].what


def test_nsq_as_it_comes(nsqd: Nsqd) -> None:
    """An nsqd with its defaults keeps tasks in memory; clock, lease and channel are in order."""
    before = severities(look(nsqd.url()))
    asyncio.run(use(nsqd.url()))
    found = severities(look(nsqd.url()))

    assert found["nsq-memory"] == ["warning"]
    assert found["nsq-lease"] == found["clock"] == found["nsq-channel"] == []
    assert before["nsq-channel"] == ["unchecked"]


def test_nsq_set_up_badly(tmp_path: Path) -> None:
    """A shorter --max-msg-timeout than the URL says, and a channel that is paused; no memory queue is no warning."""
    server = Nsqd(tmp_path, "-max-msg-timeout=2m", "-mem-queue-size=0")
    server.start()
    try:
        asyncio.run(use(server.url(max_lease="2m")))
        pause = f"http://127.0.0.1:{server.http}/channel/pause?topic=t&channel=t"
        urlopen(Request(pause, method="POST"), timeout=10).close()
        wrong = severities(look(server.url()))
        found = severities(look(server.url(max_lease="2m")))
    finally:
        server.stop()

    assert wrong["nsq-lease"] == wrong["bus"] == ["problem"]
    assert found["nsq-lease"] == found["nsq-memory"] == []
    assert found["nsq-channel"] == ["problem"]


def test_nsq_that_is_away(nsqd: Nsqd) -> None:
    """What nsqd tells over HTTP is not taken for fine when nobody answers there."""
    found = severities(look(f"nsq://127.0.0.1:{nsqd.tcp}?http=1"))

    assert found["bus"] == []
    assert found["nsq-lease"] == found["nsq-memory"] == found["nsq-channel"] == found["clock"] == ["unchecked"]


@pytest.mark.slow
def test_kafka(tmp_path: Path) -> None:
    """A broker that forgets groups soon and takes short sessions only; a topic that is compacted and kept an hour."""
    kafka = pytest.importorskip("tests.servers.kafka", reason="confluent-kafka is not installed")
    limits = {"group.max.session.timeout.ms": "20000", "offsets.retention.minutes": "60"}
    server = kafka.KafkaServer(tmp_path, properties=limits)
    server.start()
    try:
        before = severities(look(server.url))
        asyncio.run(use(f"{server.url}?partitions=2"))
        good = severities(look(server.url))
        alter(server.address, "t", {"cleanup.policy": "compact", "retention.ms": "3600000"})
        bad = severities(look(f"{server.url}?session=60s"))
        missing = severities(look(f"{server.url}?create=false"))
    finally:
        server.stop()

    assert before["kafka-cleanup"] == before["kafka-replicas"] == ["unchecked"]
    assert good["kafka-session"] == good["kafka-cleanup"] == good["kafka-retention"] == good["kafka-topics"] == []
    assert good["kafka-replicas"] == ["note", "note"]  # the topic, and its group's retry topic
    assert good["kafka-offsets"] == ["warning"]
    assert good["clock"] == ["unchecked"]
    assert bad["kafka-session"] == bad["kafka-cleanup"] == ["problem"]
    assert bad["kafka-retention"] == ["warning"]
    assert missing["kafka-topics"] == ["problem", "problem"]  # done, and the dead letters


def alter(address: str, topic: str, config: dict[str, str]) -> None:
    """Change settings of a topic as an administrator does."""
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
    from confluent_kafka.admin._resource import ResourceType

    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = AdminClient({"bootstrap.servers": address})
    for future in client.incremental_alter_configs([resource]).values():
        future.result(30)


def test_the_command_reads_a_running_worker(nsqd: Nsqd, tmp_path: Path) -> None:
    """A worker on a real bus tells its topic, group and bus on its status page, and the doctor follows."""
    from tests.helpers import wait_until
    from tests.taskbus_command import start, taskbus

    port = free_port()
    worker = start("worker", "hello-world", "--bus", nsqd.url(), "--status-port", str(port), cwd=tmp_path)
    try:

        def ready() -> bool:
            try:
                with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_until(ready, 30)
        told = taskbus("doctor", f"http://127.0.0.1:{port}", "--json", cwd=tmp_path)
    finally:
        worker.terminate()
        worker.communicate(timeout=30)

    found = json.loads(told.out)
    assert (told.code, found["topic"], found["group"]) == (0, "hello-world", "hello-world"), told
    state = {check["check"]: [finding["severity"] for finding in check["findings"]] for check in found["checks"]}
    assert state["ready"] == state["lease-lost"] == state["nsq-channel"] == state["dead-letters"] == []
    assert state["nsq-memory"] == ["warning"]
