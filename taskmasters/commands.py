"""The taskmaster commands, each loaded when it is asked for."""

from __future__ import annotations

__all__ = ["commands", "workflow_commands"]

#: Name of the command → ``module:attribute`` of the click command.
commands: dict[str, str] = {
    "alerts": "taskmasters.alerts.app:alerts",
    "batch": "taskmasters.batch.app:batch",
    "batcher": "taskmasters.batcher.app:batcher",
    "cron": "taskmasters.cron.app:cron",
    "files": "taskmasters.files.app:files",
    "on-done": "taskmasters.on_done.app:on_done",
    "retry": "taskmasters.retry.app:retry",
    "delay": "taskmasters.delay.app:delay",
    "workflow": "taskmasters.workflow.app:workflow",
}

#: The same for what looks at the runs of workflows.
workflow_commands: dict[str, str] = {
    "list": "taskmasters.workflow.commands:list_",
    "show": "taskmasters.workflow.commands:show",
    "cancel": "taskmasters.workflow.commands:cancel",
}
