"""The built-in worker applications by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["BUILT_IN"]

#: Name → ``module:attribute`` of a function that takes the remaining arguments and ``prog_name``, runs the
#: application and returns its exit code. Modules are imported only when run.
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "hello-world": "workers.hello_world:main",
        "noop": "workers.noop:main",
        "shell": "workers.shell.app:main",
    }
)
