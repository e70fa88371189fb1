"""A real Kafka broker in KRaft mode, from Maven Central into a cache outside the tree, on free loopback ports.

Needs Java 17 and Maven, and confluent-kafka to see when the broker answers.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers import need_servers

__all__ = ["VERSION", "KafkaCluster", "KafkaServer", "jars"]

VERSION = "4.3.1"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskbus" / "brokers" / f"kafka-{VERSION}"
_LOGGER = "1.7.36"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>taskbus.local</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{_LOGGER}</version>
    </dependency>
  </dependencies>
</project>
"""
#: 16 bytes in URL-safe base64.
_CLUSTER = "dGFza2J1cy1rYWZrYS0xMQ"
_JAVA = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
#: Seconds until a broker must answer.
_PATIENCE = 60.0
#: Small, quick to start, and quick to see that a consumer is dead.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "2000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
}


def jars() -> Path:
    """The folder of the broker and what it needs. Skips where it cannot be had; with ``CI`` set that is a failure."""
    need_servers()
    _CACHE.mkdir(parents=True, exist_ok=True)
    with open(_CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trouble = "" if (_CACHE / "jars").exists() else _fetch()
    if not trouble and shutil.which("java") is None:
        trouble = "java is not installed"
    if trouble:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Kafka: {trouble}")
    return _CACHE / "jars"


def _fetch() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        return "Maven is not installed"
    partial = _CACHE / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    (_CACHE / "pom.xml").write_text(_POM)
    copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    made = subprocess.run(
        [maven, "-q", "-B", "-f", str(_CACHE / "pom.xml"), *copy], capture_output=True, text=True, timeout=600
    )
    if made.returncode:
        return made.stdout[-500:] + made.stderr[-500:]
    partial.rename(_CACHE / "jars")
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class KafkaServer:
    """One broker that is its own controller; data and ports outlast restarts.

    ``listeners`` are more listeners by name with their protocol, as in ``{"LOGIN": "SASL_PLAINTEXT"}``; each gets a
    port of its own in :attr:`ports`. ``properties`` are the broker's, over the defaults. ``scram`` are arguments of
    ``--add-scram`` of Kafka's StorageTool.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
        node: int = 1,
        controller: int | None = None,
        voters: str | None = None,
        replicas: int = 1,
    ) -> None:
        need_servers()
        self.folder = folder / f"kafka-{node}"
        self.folder.mkdir(exist_ok=True)
        self.port = port or _free_port()
        self.controller = controller or _free_port()
        self.ports = {name: _free_port() for name in listeners or {}}
        self._protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"} | dict(listeners or {})
        self._scram = scram
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        shown = {"PLAINTEXT": self.port} | self.ports
        addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in shown.items())
        copies = {
            f"{name}.{key}": str(value)
            for name in ("transaction.state.log", "share.coordinator.state.topic")
            for key, value in (("replication.factor", replicas), ("min.isr", max(1, replicas - 1)))
        }
        self._properties = {
            **_PROPERTIES,
            **copies,
            "offsets.topic.replication.factor": str(replicas),
            "node.id": str(node),
            "controller.quorum.voters": voters or f"{node}@127.0.0.1:{self.controller}",
            "listeners": f"{addresses},CONTROLLER://127.0.0.1:{self.controller}",
            "advertised.listeners": addresses,
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in self._protocols.items()),
            "log.dirs": str(self.folder / "data"),
            **(properties or {}),
        }

    @property
    def address(self) -> str:
        """``host:port`` of the listener without encryption."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The bus URL."""
        return f"kafka://{self.address}"

    def start(self) -> None:
        """Start, and return when it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start, and return at once."""
        path = self.folder / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()))
        java = ["java", *_JAVA, "-cp", f"{jars()}/*"]
        if not (self.folder / "data").exists():
            scram = [part for user in self._scram for part in ("--add-scram", user)]
            format_ = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(path), *scram]
            subprocess.run([*java, *format_], check=True, capture_output=True, timeout=60)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*java, "kafka.Kafka", str(path)], stdout=log, stderr=log)

    def wait(self) -> None:
        """Return when a client is answered."""
        deadline = time.monotonic() + _PATIENCE
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 100})
        while not _answers(client, int(self._properties["node.id"])):
            text = self._log.read_text()[-2000:]
            if self._process is None or self._process.poll() is not None:
                raise AssertionError(f"Kafka ended: {text}")
            if time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise AssertionError(f"Kafka does not answer: {text}")
            time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it runs, and wait until it has."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """End cleanly."""
        self.end()

    def kill(self) -> None:
        """SIGKILL."""
        self.end(signal.SIGKILL)

    def restart(self) -> None:
        """End cleanly and start again."""
        self.stop()
        self.start()

    def kill_and_start(self) -> None:
        """SIGKILL and start again."""
        self.kill()
        self.start()


class KafkaCluster:
    """Three brokers, each a voter of the quorum; every topic can have three replicas."""

    def __init__(self, folder: Path, nodes: int = 3, *, properties: Mapping[str, str] | None = None) -> None:
        need_servers()
        controllers = {node: _free_port() for node in range(1, nodes + 1)}
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
        more = {"default.replication.factor": str(nodes), "min.insync.replicas": str(nodes - 1), **(properties or {})}
        self.servers = [
            KafkaServer(folder, node=node, controller=port, voters=voters, replicas=nodes, properties=more)
            for node, port in controllers.items()
        ]

    @property
    def url(self) -> str:
        """The bus URL, naming every broker."""
        return "kafka://" + ",".join(server.address for server in self.servers)

    def start(self) -> None:
        """Start all, and return when each answers."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait()

    def stop(self) -> None:
        """End all. Cleanly would need a quorum to the last."""
        for server in self.servers:
            server.kill()


def _answers(client: AdminClient, node: int) -> bool:
    try:
        return node in client.list_topics(timeout=0.5).brokers
    except KafkaException:
        return False
