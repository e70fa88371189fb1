"""The hello-world worker."""

from __future__ import annotations

from task.context import Context
from task.outcome import complete
from task.task import Task
from workers.hello_world import HelloWorld


def test_greets_the_value() -> None:
    """The message greets whoever the value names."""
    task = Task("hello-world", "wörld")

    assert HelloWorld(task).do_task(Context(task)) == complete("hello wörld")
