"""What an orchestrator allows, read from its own file.

systemd: ``TimeoutStopSec``, ``LimitNOFILE`` and ``MemoryMax`` of a unit (systemd.service(5), systemd.exec(5)).
Kubernetes: ``terminationGracePeriodSeconds`` and the limit of memory of a manifest with a pod in it.
Compose: ``stop_grace_period`` and ``mem_limit`` of the services.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.doctor.setup import Limits
from bus.units import parse_duration, parse_size
from task.errors import SettingsError

__all__ = ["read_limits"]

#: What each takes where the file says nothing, in seconds.
_SYSTEMD, _KUBERNETES, _COMPOSE = 90.0, 30.0, 10.0
_LARGEST = 4 * 1024**2
_SPAN = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([a-zA-Zµ]*)")
_UNITS = {
    **dict.fromkeys(("us", "usec", "µs"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


def read_limits(path: str) -> Limits:
    """The limits in a systemd unit (any name that does not end in .yaml or .yml), a manifest or a compose file.

    Where a file has several services or pods, the tightest is taken and named.

    Raises:
        SettingsError: it cannot be read, or holds no service.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"--unit: {path} cannot be read: {reason}") from None
    try:
        return _yaml(text, path) if Path(path).suffix in (".yaml", ".yml") else _unit(text, path)
    except ValueError as error:
        raise SettingsError(f"--unit: {path}: {error}") from None


def _unit(text: str, path: str) -> Limits:
    section, found = "", {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == "Service" and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    if "[Service]" not in text:
        raise ValueError("is no systemd unit: it has no [Service]; a manifest ends in .yaml or .yml")
    stop = found.get("TimeoutStopSec") or found.get("TimeoutSec")
    memory, files = found.get("MemoryMax", ""), found.get("LimitNOFILE", "").partition(":")[0]
    return Limits(
        _SYSTEMD if stop is None else _span(stop),
        None if not memory or memory == "infinity" or memory.endswith("%") else float(parse_size(_binary(memory))),
        float(files) if files.isdigit() else None,
        path if stop else f"{path}, by default",
    )


def _span(text: str) -> float:
    if text == "infinity":
        return float("inf")
    total, position = 0.0, 0
    for part in _SPAN.finditer(text):
        if part.start() != position or part[2] not in _UNITS:
            break
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    if position != len(text.rstrip()) or not text:
        raise ValueError(f"TimeoutStopSec={text} is no time span")
    return total or float("inf")


def _yaml(text: str, path: str) -> Limits:
    import yaml

    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"is not YAML: {str(error).splitlines()[0]}") from None
    found = [
        limits for document in documents for limits in (*_compose(document, path), *_pods(document, path, "", set()))
    ]
    if not found:
        raise ValueError("holds neither a pod (Kubernetes) nor services (compose)")
    memories = [each.memory for each in found if each.memory is not None]
    tightest = min(found, key=lambda each: each.grace or 0.0)
    return Limits(tightest.grace, min(memories, default=None), None, tightest.source)


def _compose(document: Any, path: str) -> Iterator[Limits]:
    services = document.get("services") if isinstance(document, dict) else None
    for name, service in services.items() if isinstance(services, dict) else ():
        if isinstance(service, dict):
            grace, memory = service.get("stop_grace_period"), service.get("mem_limit")
            yield Limits(
                _COMPOSE if grace is None else parse_duration(str(grace)),
                None if memory is None else float(parse_size(_binary(str(memory)))),
                None,
                f"{path}: service {name}" + (", by default" if grace is None else ""),
            )


def _pods(node: Any, path: str, name: str, seen: set[int]) -> Iterator[Limits]:
    # Aliases may multiply or go in circles: what was seen is not looked at again.
    if not isinstance(node, (list, dict)) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, list):
        for each in node:
            yield from _pods(each, path, name, seen)
        return
    metadata = node.get("metadata")
    name = str(metadata.get("name") or name) if isinstance(metadata, dict) else name
    if isinstance(containers := node.get("containers"), list):
        grace = node.get("terminationGracePeriodSeconds")
        limits = [_at(each, "resources", "limits", "memory") for each in containers]
        memories = [float(parse_size(str(memory))) for memory in limits if memory is not None]
        yield Limits(
            _KUBERNETES if grace is None else parse_duration(str(grace)),
            min(memories, default=None),
            None,
            f"{path}: pod {name}".rstrip() + (", by default" if grace is None else ""),
        )
        return
    for each in node.values():
        yield from _pods(each, path, name, seen)


def _at(node: Any, *keys: str) -> Any:
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _binary(text: str) -> str:
    """systemd and compose mean powers of two by ``512M``."""
    return text + "i" if text[-1:].lower() in ("k", "m", "g") else text
