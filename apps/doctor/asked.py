"""From what was asked for to the setup to look at: a configuration, a bus, a status page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from apps.doctor.limits import read_limits
from apps.doctor.setup import Limits, Setup
from apps.doctor.status_page import durations_of, read_status
from bus import BusURL, BusURLError, check_group, check_topic, dead_topic, parse_url
from task.document import load_document
from task.errors import SettingsError
from task.options import WorkerOptions
from task.setting import setting
from task.settings import click_options, resolve
from task.worker_app import endpoint

__all__ = ["Asked", "prepare"]

_CONFIGS = (".toml", ".yaml", ".yml")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says. ``target`` is a configuration file, a bus URL or the address of a status page."""

    target: str | None = None
    bus: str | None = None
    status: str | None = None
    kind: str | None = None
    topic: str | None = None
    group: str | None = None
    grace: float | None = None
    unit: str | None = None
    flags: Sequence[str] = ()


def prepare(asked: Asked) -> Setup:
    """The setup, before its bus is looked at.

    Raises:
        SettingsError, BusURLError, BadNameError: what was given is wrong.
        StatusError: the status page does not answer.
    """
    config, url, address = _sorted(asked)
    status = read_status(address) if address is not None else None
    options = _options(config, asked.flags) if config or asked.flags or not (url or address) else None
    kind = asked.kind or (status.text("type") if status else None)
    topic = asked.topic or (options.topic if options else None) or (status.text("topic") if status else None) or kind
    group = asked.group or (options.group if options else None) or (status.text("group") if status else None)
    group = group or kind or topic
    done = options.done_topic if options else "done"
    dead = (options.dead_topic if options else None) or (dead_topic(topic) if topic else None)
    limits = read_limits(asked.unit) if asked.unit else Limits()
    if asked.grace is not None:
        limits = dataclasses.replace(limits, grace=asked.grace, source="--grace")
    source, troubles = _bus(url, options, status.text("in") if status else None)
    return Setup(
        url=source,
        options=options,
        kind=kind or topic,
        topic=check_topic(topic) if topic else None,
        group=check_group(group) if group else None,
        done_topic=None if done == "-" else check_topic(done),
        dead_topic=check_topic(dead) if dead else None,
        status=status,
        durations=durations_of(status) if status else None,
        limits=limits,
        troubles=troubles,
    )


def _sorted(asked: Asked) -> tuple[str | None, str | None, str | None]:
    """Configuration file, bus URL and address of a status page, whichever the target is."""
    target = asked.target
    if target is None:
        return None, asked.bus, asked.status
    if target.startswith(("http://", "https://")):
        if asked.status is not None:
            raise SettingsError("--status: the target is a status page already; give one of them")
        return None, asked.bus, target
    if target.endswith(_CONFIGS):
        return target, asked.bus, asked.status
    if asked.bus is not None:
        raise SettingsError("--bus: the target is a bus already; give one of them")
    try:
        parse_url(target)
    except BusURLError as error:
        raise SettingsError(f"{error}; a configuration file ends in {', '.join(_CONFIGS)}") from None
    return None, target, asked.status


def _options(config: str | None, flags: Sequence[str]) -> WorkerOptions:
    """The settings as the worker reads them, its own ones left aside: those this project does not know."""
    import click

    known = {field.name.rstrip("_") for field in dataclasses.fields(WorkerOptions)}
    extra = [key for key in (load_document(config).data if config else {}) if key not in known and key.isidentifier()]
    own: Any = [(key, Any, setting(None, "", read=str)) for key in extra]
    settings: Any = dataclasses.make_dataclass("Settings", own, bases=(WorkerOptions,), frozen=True, kw_only=True)

    @click.command(add_help_option=False)
    @click_options(WorkerOptions)
    def command(config: object, **given: object) -> dict[str, object]:
        return given

    try:
        given = command.main(args=list(flags), prog_name="--", standalone_mode=False)
    except click.ClickException as error:
        raise SettingsError(f"after --: {error.format_message()}") from None
    if not isinstance(given, dict):
        raise SettingsError("after --: give options of the worker only")
    resolved: WorkerOptions = resolve(settings, given, config=config).settings
    return resolved


def _bus(url: str | None, options: WorkerOptions | None, told: str | None) -> tuple[BusURL | None, dict[str, str]]:
    """The bus of the tasks. A status page shows no passwords, so that its URL may not be enough to connect."""
    if url is not None:
        return parse_url(url), {}
    if options is not None:
        return (endpoint(options.in_) if options.in_ is not None else parse_url(options.bus)), {}
    if told is None:
        return None, {}
    if "***" in told:
        return None, {"queues": f"the status page tells {told} without its secrets: give the URL as --bus"}
    return parse_url(told), {}
