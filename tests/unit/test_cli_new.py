"""``taskbus new worker``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.taskbus_command import environment, taskbus


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("resize-image", "ResizeImage"),
        ("a.b_c2", "ABC2"),
        ("camelCase", "CamelCase"),
        ("worker", "WorkerWorker"),
        ("true", "TrueWorker"),
    ],
)
def test_starter_passes_its_own_tests(tmp_path: Path, name: str, made: str) -> None:
    """The folder holds a worker, its tests, which pass, rules and a README, all with the name filled in."""
    result = taskbus("new", "worker", name, cwd=tmp_path)

    assert result.code == 0
    files = {path.name: path.read_text() for path in (tmp_path / name).iterdir()}
    assert sorted(files) == ["README.md", "rules.toml", "test_worker.py", "worker.py"]
    assert result.out.splitlines() == [f"{name}/{file}" for file in sorted(files)]
    assert f"class {made}(Worker)" in files["worker.py"]
    assert not any("{{" in text for text in files.values())
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / name,
        env=environment(),
        capture_output=True,
        timeout=60,
    )
    assert tests.returncode == 0, tests.stdout.decode()
    assert b"2 passed" in tests.stdout


def test_example_rules_are_right(tmp_path: Path) -> None:
    """The rule file of the starter is one the cron taskmaster takes."""
    taskbus("new", "worker", "resize", cwd=tmp_path)
    result = taskbus("taskmaster", "cron", "rules.toml", "--next", "1", cwd=tmp_path / "resize")

    assert result.code == 0
    assert [task["type"] for task in result.tasks] == ["resize"]


def test_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "worker.py").write_text("mine")
    result = taskbus("new", "worker", "mine", cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert "mine exists already and is left as it is" in result.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["worker.py"]


@pytest.mark.parametrize("name", ["../up", "a/b", "1a", "-a", "a--b", "ä", "", ".", "a\nb"])
def test_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    """A name that could not be a topic, a folder and a class is refused, and nothing is written."""
    result = taskbus("new", "worker", "--", name, cwd=tmp_path)

    assert (result.code, result.out) == (2, "")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_told(tmp_path: Path) -> None:
    """A place where nothing can be made is an error with the system's reason."""
    result = taskbus("new", "worker", "x", cwd=Path("/proc"))

    assert result.code == 2
    assert "cannot write x: " in result.err
