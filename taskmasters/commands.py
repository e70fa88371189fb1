"""The taskmaster commands, each loaded when it is asked for."""

from __future__ import annotations

__all__ = ["commands"]

#: Name of the command → ``module:attribute`` of the click command.
commands: dict[str, str] = {
    "cron": "taskmasters.cron.app:cron",
    "on-done": "taskmasters.on_done.app:on_done",
    "retry": "taskmasters.retry.app:retry",
    "delay": "taskmasters.delay.app:delay",
    "workflow": "taskmasters.workflow.app:workflow",
}
