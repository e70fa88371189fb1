"""The worker's process, with a hand in it: it runs the user's worker as ``python -m task worker`` does, and watches it.

Started as a file, so that it imports only ``task``: users may have packages called ``apps``. It is told what to do by a
JSON object in the file that its first argument names:

``record``  a file to which every line of the worker's code that a task comes to is written: task, place and how often
``kills``   a list of ``[task, place, hit]``: where to end this process with SIGKILL, just before that line
``killed``  a file to which that is written before
``jitter``  a number: sleep for short random times before lines, so that tasks side by side meet in many ways
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_current: ContextVar[str] = ContextVar("taskbus_certify_task", default="")
#: How often one line of one task is told; a loop is cut short at its second round.
_HITS = 2
#: Seconds of the longest pause, and how many there are at most for each task.
_PAUSE, _PAUSES = 0.004, 100


class Watch:
    """Traces the lines of the worker's own files, while it does a task."""

    def __init__(self, root: Path, orders: dict[str, Any]) -> None:
        self._root = str(root)
        self._library = sysconfig.get_path("stdlib")
        self._own: dict[str, bool] = {}
        self._hits: Counter[tuple[str, str]] = Counter()
        self._paused: Counter[str] = Counter()
        self._kills = {tuple(kill) for kill in orders.get("kills", ())}
        self._killed = Path(orders.get("killed", os.devnull))
        self._random = random.Random(orders["jitter"]) if orders.get("jitter") is not None else None
        self._record: int | None = None
        if orders.get("record"):
            self._record = os.open(orders["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._random is not None:
            sys.setswitchinterval(1e-4)

    def begin(self, task: str) -> None:
        """The next frames of this thread are those of ``task``."""
        _current.set(task)
        sys.settrace(self._called)

    def _called(self, frame: Any, event: str, argument: Any) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        own = self._own.get(name)
        if own is None:
            rest = name[len(self._root) :] if name.startswith(self._root) else "site-packages"
            own = self._own[name] = "site-packages" not in rest and not name.startswith(self._library)
        return self._stepped if own else None

    def _stepped(self, frame: Any, event: str, argument: Any) -> Callable[..., Any]:
        if event == "line":
            self._at(_current.get(), f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
        return self._stepped

    def _at(self, task: str, place: str) -> None:
        self._hits[task, place] += 1
        count = self._hits[task, place]
        if count <= _HITS and self._record is not None:
            os.write(self._record, (json.dumps([task, place, count]) + "\n").encode())
        if (task, place, count) in self._kills:
            self._killed.write_text(json.dumps([task, place, count]))
            os.kill(os.getpid(), signal.SIGKILL)
        if self._random is not None and self._paused[task] < _PAUSES:
            self._paused[task] += 1
            time.sleep(self._random.uniform(0, _PAUSE))


def watched(launch: Any, watch: Watch) -> Any:
    """The same worker, which says when it begins a task. It keeps its name, by which other processes load it."""
    if isinstance(launch, type):

        def begin(self: Any, task: Any, *args: Any, **kwargs: Any) -> None:
            watch.begin(str(task.id))
            launch.__init__(self, task, *args, **kwargs)  # type: ignore[misc]

        names = {"__init__": begin, "__module__": launch.__module__, "__qualname__": launch.__qualname__}
        return type(launch.__name__, (launch,), names)

    @functools.wraps(launch)
    def launching(task: Any) -> Any:
        watch.begin(str(task.id))
        return launch(task)

    return launching


def root_of(module: Any) -> Path:
    """Where the worker's own code is: the folder of its file, or of its outermost package."""
    file = Path(module.__file__).resolve()
    depth = module.__name__.count(".") if "/" not in module.__name__ else 0
    if depth:
        return file.parents[depth - 1]
    return file if "site-packages" in file.parts else file.parent


def main(args: list[str]) -> int:
    """Load the worker and run it as a command."""
    import click  # noqa: F401  (before the user's folder comes first, where a click.py would hide it)

    from task.app import run_command
    from task.errors import WorkerError
    from task.load import import_target, load_launch

    orders = json.loads(Path(args[0]).read_text())
    sys.path.insert(0, os.getcwd())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            launch = load_launch(args[1])
            module, _ = import_target(args[1])
    except WorkerError as error:
        sys.stderr.write(f"taskbus: error: {error}\n")
        return 2
    if orders:
        launch = watched(launch, Watch(root_of(module), orders))
    return run_command(launch, args[2:], prog_name=f"taskbus worker {args[1]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
