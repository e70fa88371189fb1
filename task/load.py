"""Finding the worker a name stands for: ``hello.py``, ``hello.py:Class`` or ``package.module:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from bus import TaskbusError
from bus.url import nearest
from task.errors import WorkerError
from task.worker import Launch, Worker

__all__ = ["import_target", "load_launch", "target_of"]

#: Modules loaded from a file by path, so that another process can load them again.
_files: dict[str, Path] = {}


def load_launch(target: str) -> Launch:
    """The worker class or launch function that ``target`` names. A file may leave the name out if it has one worker.

    Raises:
        WorkerError: if it cannot be found or imported; the text says where and why.
    """
    module, name = import_target(target)
    found = _attribute(module, name, target) if name else _only_worker(module, target)
    if not callable(found):
        raise WorkerError(f"{target}: {name} is not a worker class or a launch function")
    return found  # type: ignore[no-any-return]


def import_target(target: str) -> tuple[ModuleType, str]:
    """Import the module of ``path.py[:name]`` or ``module[:name]``. Raises WorkerError."""
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not place.endswith(".py"):
        return _importing(place, lambda: importlib.import_module(place)), name
    path = Path(place).resolve()
    if not path.is_file():
        raise WorkerError(f"there is no file {place}")
    return _importing(place, lambda: _from_file(path)), name


def target_of(launch: Launch) -> str:
    """The ``target`` by which another process can load ``launch``.

    Raises:
        WorkerError: for what has no importable name, such as a lambda or a nested function.
    """
    name: str = getattr(launch, "__qualname__", "")
    module = sys.modules.get(getattr(launch, "__module__", None) or "")
    if not name or "<" in name or module is None:
        raise WorkerError(
            "process isolation starts the worker in another process, so it must be a class or function "
            f"at the top of a module, not {name or launch!r}"
        )
    file = _files.get(module.__name__)
    if module.__name__ == "__main__":
        spec = getattr(module, "__spec__", None)
        if spec is not None:
            return f"{spec.name}:{name}"
        if getattr(module, "__file__", None) is None:
            raise WorkerError("process isolation needs the worker in a file, not in an interactive session")
        file = Path(str(module.__file__)).resolve()
    return f"{file or module.__name__}:{name}"


def _importing(place: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except TaskbusError as error:
        raise WorkerError(f"{place}: {error}") from error
    except (Exception, SystemExit) as error:  # importing runs user code, which may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        at = (
            f" at {frames[-1].filename}:{frames[-1].lineno}"
            if frames and "importlib" not in frames[-1].filename
            else ""
        )
        raise WorkerError(f"{place} cannot be imported: {type(error).__name__}: {error}{at}") from error


def _from_file(path: Path) -> ModuleType:
    """Run a file as a module, with its folder on the path as ``python file.py`` has it, but not as ``__main__``."""
    for known, file in _files.items():
        if file == path:
            return sys.modules[known]
    # A file may be called like a module that is loaded, such as bus.py.
    name = path.stem
    while name in sys.modules:
        name = f"_taskbus_user_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkerError(f"{path} is not a Python file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _files[name] = path
    return module


def _attribute(module: ModuleType, name: str, target: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [key for key in vars(module) if not key.startswith("_")]
            raise WorkerError(f"{target}: {module.__name__} has no {name!r}{nearest(name, known)}")
        found = getattr(found, part)
    return found


def _only_worker(module: ModuleType, target: str) -> Any:
    workers = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Worker) and value.__module__ == module.__name__ and value.type
    ]
    if len(workers) == 1:
        return workers[0]
    if not workers:
        raise WorkerError(f"{target} defines no worker: a class derived from task.Worker with a `type`")
    names = ", ".join(worker.__qualname__ for worker in workers)
    raise WorkerError(
        f"{target} defines several workers ({names}); say which, as in {target}:{workers[0].__qualname__}"
    )
