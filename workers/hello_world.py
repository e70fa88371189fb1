"""The worker of the README."""

from __future__ import annotations

from collections.abc import Sequence

from task import Context, Outcome, Worker, complete

__all__ = ["HelloWorld", "main"]


class HelloWorld(Worker):
    """Greets whoever the task's value names."""

    type = "hello-world"

    def do_task(self, ctx: Context) -> Outcome:
        return complete(f"hello {self.task.value}")


def main(args: Sequence[str], prog_name: str) -> int:
    """Run it as an application. Returns the exit code."""
    from task.app import run_command

    return run_command(HelloWorld, list(args), prog_name=prog_name)
