"""Finding the worker that a name stands for, and the name by which another process finds it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from task import WorkerError
from task.load import import_target, load_launch, target_of
from task.worker import Launch, Worker
from tests.taskbus_command import environment
from workers.hello_world import HelloWorld

ONE = "from task import Worker\nclass One(Worker):\n    type = 'one'\n"
TWO = ONE + "class Two(Worker):\n    type = 'two'\n"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Modules and the path are as they were."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def file(folder: Path, text: str, name: str = "jobs_of_test.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def wrong(target: str) -> str:
    """What is told of a target that cannot be loaded."""
    with pytest.raises(WorkerError) as caught:
        load_launch(target)
    return str(caught.value)


def test_a_file_with_one_worker(tmp_path: Path) -> None:
    """It needs no name. Classes it imports, and such without a type, are not its workers."""
    text = ONE + "from workers.hello_world import HelloWorld\nclass Base(Worker):\n    pass\n"
    launch = load_launch(file(tmp_path, text))

    assert (launch.__name__, launch.type) == ("One", "one")  # type: ignore[attr-defined]


def test_a_name_in_a_file(tmp_path: Path) -> None:
    """The name tells which; it may lead into a class."""
    path = file(tmp_path, TWO + "class Outer:\n    class Inner(Worker):\n        type = 'inner'\n")

    assert load_launch(f"{path}:Two").__name__ == "Two"
    assert load_launch(f"{path}:Outer.Inner").__name__ == "Inner"


def test_a_module() -> None:
    """With or without the class."""
    assert load_launch("workers.hello_world:HelloWorld") is HelloWorld
    assert load_launch("workers.hello_world") is HelloWorld


def test_a_launch_function(tmp_path: Path) -> None:
    """Whatever can be called is taken."""
    path = file(tmp_path, ONE + "def launch(task):\n    return One(task)\n")

    assert load_launch(f"{path}:launch").__name__ == "launch"


def test_a_file_sees_the_files_beside_it(tmp_path: Path) -> None:
    """As when it is run by python."""
    file(tmp_path, "kind = 'beside'\n", "beside_of_test.py")
    path = file(tmp_path, "import beside_of_test\n" + ONE.replace("'one'", "beside_of_test.kind"))

    assert load_launch(path).type == "beside"  # type: ignore[attr-defined]


def test_a_file_is_loaded_once(tmp_path: Path) -> None:
    """Named twice, by whatever path, it is one module with one class."""
    path = file(tmp_path, ONE)

    assert load_launch(path) is load_launch(f"{tmp_path}/../{tmp_path.name}/jobs_of_test.py:One")


def test_files_of_the_same_name(tmp_path: Path) -> None:
    """Three of them are three modules, and a file called like a module of Python is not that module."""
    paths = [file(tmp_path / folder, ONE.replace("'one'", f"'{folder}'")) for folder in "abc"]
    mine = file(tmp_path, ONE, "json.py")

    found = [load_launch(path) for path in paths]

    assert [launch.type for launch in found] == ["a", "b", "c"]  # type: ignore[attr-defined]
    assert all(load_launch(path) is launch for path, launch in zip(paths, found, strict=True))
    assert load_launch(mine).__module__ != "json"


def test_a_file_that_failed_can_be_loaded_when_it_is_mended(tmp_path: Path) -> None:
    """Nothing is left of the first try."""
    path = file(tmp_path, "raise ValueError('not yet')\n")
    assert "ValueError: not yet" in wrong(path)

    file(tmp_path, ONE)
    assert load_launch(path).__module__ == "jobs_of_test"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "defines no worker: a class derived from task.Worker with a `type`"),
        (TWO, "defines several workers (One, Two); say which, as in"),
        ("def f(:\n", "cannot be imported: SyntaxError: "),
        ("import no_such_thing\n", "cannot be imported: ModuleNotFoundError: No module named 'no_such_thing' at "),
        ("\n\nraise ValueError('no')\n", "cannot be imported: ValueError: no at {path}:3"),
        ("import sys\nsys.exit('bye')\n", "cannot be imported: SystemExit: bye at {path}:2"),
        ("from task import worker\n@worker('')\ndef f(): pass\n", "name the task type"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, told: str) -> None:
    """It is told with the file, and the line where there is one."""
    path = file(tmp_path, text)
    found = wrong(path)

    assert found.startswith(path)
    assert told.format(path=path) in found


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("missing.py", "there is no file missing.py"),
        ("missing.py:One", "there is no file missing.py"),
        ("workers.hello_world:HelloWrld", "did you mean 'HelloWorld'?"),
        ("workers.hello_world:HelloWorld.nothing", "has no 'HelloWorld.nothing'"),
        ("workers.hello_world:__all__", "is not a worker class or a launch function"),
        ("no_such_package.jobs:One", "cannot be imported: ModuleNotFoundError"),
        (":One", "cannot be imported: ValueError"),
        ("", "cannot be imported: ValueError"),
        ("..jobs:One", "cannot be imported: TypeError"),
    ],
)
def test_what_cannot_be_found(target: str, told: str) -> None:
    """The nearest name is told."""
    assert told in wrong(target)


def test_ctrl_c_while_importing(tmp_path: Path) -> None:
    """It is no mistake of the file."""
    with pytest.raises(KeyboardInterrupt):
        load_launch(file(tmp_path, "raise KeyboardInterrupt\n"))


def test_the_name_for_another_process(tmp_path: Path) -> None:
    """By it the same worker is found: module and class, or file and class."""
    path = file(tmp_path, TWO + "class Outer:\n    class Inner(Worker):\n        type = 'inner'\n")

    assert target_of(HelloWorld) == "workers.hello_world:HelloWorld"
    for name in ("Two", "Outer.Inner"):
        launch = load_launch(f"{path}:{name}")
        assert target_of(launch) == f"{path}:{name}"
        assert load_launch(target_of(launch)) is launch


@pytest.mark.parametrize("how", [["main.py"], ["-m", "main"], ["-m", "pack.main"], ["-m", "pack"]])
def test_the_name_of_a_worker_in_the_main_program(tmp_path: Path, how: list[str]) -> None:
    """``python main.py`` and ``python -m main`` can have their worker loaded by another process."""
    text = ONE + "if __name__ == '__main__':\n    from task.load import target_of\n    print(target_of(One))\n"
    file(tmp_path, text, "main.py")
    for name in ("__init__.py", "main.py", "__main__.py"):
        file(tmp_path / "pack", text if name != "__init__.py" else "", name)
    done = subprocess.run(
        [sys.executable, *how], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=30, check=True
    )

    expected = {
        "main.py": f"{tmp_path}/main.py:One", "main": "main:One", "pack.main": "pack.main:One",
        "pack": "pack.__main__:One",
    }  # fmt: skip
    assert done.stdout.strip() == expected[how[-1]]


def _make() -> type[Worker]:
    class Local(Worker):
        type = "local"

    return Local


@pytest.mark.parametrize("launch", [_make(), partial(HelloWorld)], ids=["a local class", "a partial"])
def test_what_has_no_name_for_another_process(launch: Launch) -> None:
    """It is told where it must be instead."""
    with pytest.raises(WorkerError, match="at the top of a module"):
        target_of(launch)


def test_a_worker_typed_at_a_prompt() -> None:
    """There is no file another process could load."""
    script = ONE + "from task.load import target_of\ntry:\n    target_of(One)\nexcept Exception as e:\n    print(e)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout == "process isolation needs the worker in a file, not in an interactive session\n"


def test_import_target_without_a_name() -> None:
    """The module, and an empty name."""
    module, name = import_target("workers.hello_world")

    assert (module.__name__, name) == ("workers.hello_world", "")
