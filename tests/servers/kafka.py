"""A real Kafka broker in KRaft mode, from Maven Central into a cache outside the tree, on free loopback ports.

Needs Java 17 and Maven, and confluent-kafka to see when the broker answers.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers import missing, need_servers
from tests.servers.process import CACHE, ServerProcess, free_port

__all__ = ["VERSION", "KafkaCluster", "KafkaServer", "jars"]

VERSION = "4.3.1"
_CACHE = CACHE / f"kafka-{VERSION}"
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
        missing(f"no Kafka: {trouble}")
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


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


class KafkaServer(ServerProcess):
    """One broker that is its own controller; data and ports outlast restarts.

    ``listeners`` are more listeners by name with their protocol, as in ``{"LOGIN": "SASL_PLAINTEXT"}``; each gets a
    port of its own in :attr:`ports`, that of ``ports`` if given. Of one behind a proxy clients are told the port in
    ``told`` instead. ``properties`` are the broker's, over the defaults.
    ``scram`` are arguments of ``--add-scram`` of Kafka's StorageTool.
    """

    patience = 60.0

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        listeners: Mapping[str, str] | None = None,
        ports: Mapping[str, int] | None = None,
        told: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
        node: int = 1,
        controller: int | None = None,
        voters: str | None = None,
        replicas: int = 1,
    ) -> None:
        need_servers()
        own = folder / f"kafka-{node}"
        own.mkdir(exist_ok=True)
        super().__init__(own, "kafka")
        self.port = port or free_port()
        self.controller = controller or free_port()
        self.ports = {name: (ports or {}).get(name) or free_port() for name in listeners or {}}
        self._protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"} | dict(listeners or {})
        self._scram = scram
        listening = {"PLAINTEXT": self.port} | self.ports
        addresses = _addresses(listening)
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
            "advertised.listeners": _addresses(listening | dict(told or {})),
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

    def command(self) -> Sequence[str | Path]:
        """See :class:`ServerProcess`. Formats the storage of a new one."""
        path = self.folder / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()))
        java = ["java", *_JAVA, "-cp", f"{jars()}/*"]
        if not (self.folder / "data").exists():
            scram = [part for user in self._scram for part in ("--add-scram", user)]
            format_ = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(path), *scram]
            subprocess.run([*java, *format_], check=True, capture_output=True, timeout=60)
        return [*java, "kafka.Kafka", str(path)]

    def answers(self) -> bool:
        """See :class:`ServerProcess`."""
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 100})
        try:
            return int(self._properties["node.id"]) in client.list_topics(timeout=1).brokers
        except KafkaException:
            return False


class KafkaCluster:
    """Three brokers, each a voter of the quorum; every topic can have three replicas."""

    def __init__(self, folder: Path, nodes: int = 3, *, properties: Mapping[str, str] | None = None) -> None:
        need_servers()
        controllers = {node: free_port() for node in range(1, nodes + 1)}
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
