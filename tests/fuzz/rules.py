"""Rule files of every taskmaster, and configuration files, as TOML and as YAML."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import yaml

from task.errors import SettingsError
from task.options import WorkerOptions
from task.settings import resolve, show
from taskmasters.alerts.rules import load_alerts
from taskmasters.cron.rules import load_cron_rules
from taskmasters.files.rules import load_file_rules
from taskmasters.on_done.rules import load_on_done_rules
from taskmasters.retry.rules import load_retry_rules
from taskmasters.workflow.load import load_workflows
from tests.fuzz.seeds import documented, workflows
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

#: In memory, if there is such a place: what is read is written for every input.
_SHM = Path("/dev/shm")
_FOLDER = tempfile.TemporaryDirectory(prefix="taskbus-fuzz-", dir=_SHM if os.access(_SHM, os.W_OK) else None)

_CRON = b"""[[rule]]
id = "a"
cron = "0 5 * * 1-5"
zone = "Europe/Berlin"
offset = "-1d"
type = "load"
task = "s3://lake/{yyyy}/{mm}/{dd}?x={ts}"
meta = { a = "b" }
missed = "all"
[[rule]]
cron = "@every 90s"
type = "t"
enabled = false
"""
_ON_DONE = b"""[[rule]]
id = "shout"
match = { type = ["hello-*", "x"], result = ["complete", "warn"], meta = { workflow = "*" }, value = "s3://*" }
type = "shout"
task = "{parent.msg}{meta:more|default:}"
[[rule]]
match = { type = "fan" }
type = "leaf"
for_each = "01..12"
task = "{item}"
[[rule]]
match = { type = "leaf" }
type = "join"
task = "x"
"""
# The file that the page names is not there.
_ALERTS = tuple(
    seed.replace(b'url_file = "slack-url"', b'url = "https://hooks.example.org/services/T0"')
    for seed in documented("alerts.toml")
)
_CONFIG = b"""bus = "sqlite:work.db?lease=1m"
topic = "t"
retries = 3
retry_delay = "1m"
max_in_progress = 4
timeout = "1h"
status_port = 8080
log_level = "info"
drain = true
"""


def _reading(name: str, load: Callable[[str], object]) -> Callable[[bytes], None]:
    """A reader of files of this name."""

    def read(data: bytes) -> None:
        path = os.path.join(_FOLDER.name, name)
        with open(path, "wb") as file:
            file.write(data)
        load(path)

    return read


def _as_yaml(seeds: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(yaml.safe_dump(tomllib.loads(seed.decode())).encode() for seed in seeds)


def _both(name: str, seeds: tuple[bytes, ...], load: Callable[[str], object], cost: int) -> list[Target]:
    return [
        Target(f"{name}-toml", seeds, _reading(f"{name}.toml", load), (SettingsError,), cost),
        Target(f"{name}-yaml", _as_yaml(seeds), _reading(f"{name}.yaml", load), (SettingsError,), 2 * cost),
    ]


def _settings(path: str) -> None:
    show(resolve(WorkerOptions, {}, environ={}, config=path))


TARGETS = (
    *_both("cron", (_CRON, *documented("rules.toml")), load_cron_rules, 5),
    *_both("on-done", (_ON_DONE,), load_on_done_rules, 5),
    *_both("retry", documented("retry.toml"), load_retry_rules, 5),
    *_both("alerts", _ALERTS, load_alerts, 5),
    *_both("files", documented("files.toml"), load_file_rules, 5),
    *_both("workflow", workflows(), load_workflows, 10),
    *_both("config", (_CONFIG,), _settings, 5),
)
