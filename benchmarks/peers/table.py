"""Every peer whose server is at hand, beside ours on the same server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.peers.measure import Peer, measure
from benchmarks.peers.servers import RabbitMQ, Redis
from benchmarks.servers import at_hand, new_bus

__all__ = ["peers"]

_OURS = "ours"
#: By server: ours where we have a bus for it, and the peers, with the distribution that must be installed.
_PEERS: dict[str, tuple[tuple[str, str], ...]] = {
    "nats": ((_OURS, ""), ("taskiq_jetstream", "taskiq-nats"), ("faststream_jetstream", "faststream")),
    "sqlite": ((_OURS, ""), ("huey_sqlite", "huey")),
    "redis": (("with_dramatiq", "dramatiq"), ("with_celery", "celery"), ("with_arq", "arq"), ("with_rq", "rq")),
    "rabbitmq": (("with_dramatiq", "dramatiq"), ("with_celery", "celery")),
}


def peers(folder: Path, python: Path, count: int) -> Iterator[tuple[str, str, Peer] | str]:
    """Server, module and figures of each, the peers in the environment of ``python``; or why there are none."""
    versions = _versions(python)
    for server, modules in _PEERS.items():
        for module, distribution in modules:
            if module != _OURS and distribution not in versions:
                yield f"{module}: {distribution} is not installed in {python}; pip said why when `make` installed it"
                continue
            runs_in = Path(sys.executable) if module == _OURS else python
            name = module if module == _OURS else f"{module} {versions[distribution]}"
            place = folder / f"{server}-{module}"
            yield from at_hand(place, partial(_one, server, module, name, runs_in, count))


def _one(
    server: str, module: str, name: str, python: Path, count: int, stack: ExitStack, folder: Path
) -> Iterator[tuple[str, str, Peer] | str]:
    try:
        yield server, name, measure(module, python, _start(server, module, stack, folder), folder, count)
    except RuntimeError as error:
        yield f"{module}: {error}"


def _versions(python: Path) -> dict[str, str]:
    if not python.exists():
        return {}
    told = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True)
    return dict(line.split("==", 1) for line in told.stdout.splitlines() if "==" in line)


def _start(server: str, module: str, stack: ExitStack, folder: Path) -> str:
    if server == "redis":
        return stack.enter_context(Redis(folder).running()).url
    if server == "rabbitmq":
        return stack.enter_context(RabbitMQ(folder).running()).url
    if server == "sqlite" and module != _OURS:
        return str(folder / "tasks.db")
    return new_bus(server, stack, folder)
