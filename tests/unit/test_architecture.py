"""What the folders say about who may import whom, and the other rules the code keeps."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("bus", "task", "taskmasters", "workers", "apps")
#: Package → those of ours it may import besides itself.
ALLOWED = {
    "bus": set[str](),
    "task": {"bus"},
    "taskmasters": {"bus", "task"},
    "workers": {"bus", "task"},
    "apps": {"bus", "task", "taskmasters", "workers"},
}
#: Client libraries and other weights that only what needs them may bring in.
HEAVY = (
    "bus.contract",
    "bus.url",
    "click",
    "yaml",
    "sqlite3",
    "sqlalchemy",
    "cronsim",
    "prometheus_client",
    "http.server",
    "importlib.metadata",
    "asyncio",
)
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill"}
FORBIDDEN_CALLS = {"eval", "exec", "compile"}
MAX_LINES = 500


def _modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_import_direction(package: str) -> None:
    """bus imports nothing of ours, task only bus, the others only those two; apps may run everything."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in _modules()
        if path.relative_to(ROOT).parts[0] == package
        for name in _imported(tree)
        if (top := name.split(".")[0]) in PACKAGES and top != package and top not in ALLOWED[package]
    ]

    assert wrong == []


def test_apps_are_loaded_lazily_by_name_only() -> None:
    """The command line reaches workers and taskmasters through their registries, so that each starts quickly."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in _modules()
        if path.relative_to(ROOT).parts[0] == "apps"
        for name in _imported(tree)
        if name.split(".")[0] in ("taskmasters", "workers") and name not in ("taskmasters.commands", "workers.registry")
    ]

    assert wrong == []


def test_import_task_stays_light() -> None:
    """``import task`` brings in none of the heavy modules."""
    code = f"import sys, task; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert found.stdout.strip() == "[]"


def test_modules_have_one_concept() -> None:
    """No module is longer than 500 lines."""
    long = [
        str(path.relative_to(ROOT))
        for folder in (*PACKAGES, "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if len(path.read_text().splitlines()) > MAX_LINES and folder != "tests"
    ]

    assert long == []


def test_nothing_dangerous() -> None:
    """No pickle, no eval, no str.format on anything but a literal, no yaml.load."""
    wrong = []
    for path, tree in _modules():
        if set(_imported(tree)) & FORBIDDEN_IMPORTS:
            wrong.append(f"{path}: forbidden import")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                wrong.append(f"{path}:{node.lineno}: {node.func.id}")
            if isinstance(node.func, ast.Attribute):
                literal = isinstance(node.func.value, ast.Constant)
                if node.func.attr in ("format", "format_map") and not literal and _is_text_method(node):
                    wrong.append(f"{path}:{node.lineno}: format on a text that is no literal")
                if node.func.attr == "load" and ast.unparse(node.func.value) == "yaml":
                    wrong.append(f"{path}:{node.lineno}: yaml.load")

    assert wrong == []


def _is_text_method(node: ast.Call) -> bool:
    """Whether this may be ``str.format``: a method of ours by that name is called with one plain name."""
    return not (len(node.args) == 1 and isinstance(node.args[0], ast.Name) and node.args[0].id in ("record", "value"))


def test_no_assert_for_runtime_state() -> None:
    """An assert vanishes under -O, so the packages decide nothing by one; the conformance suite is a test."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in _modules()
        if "conformance" not in path.parts and "starter" not in path.parts
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]

    assert wrong == []


def test_every_module_says_what_it_is() -> None:
    """Each module with code begins with a docstring."""
    silent = [str(path.relative_to(ROOT)) for path, tree in _modules() if tree.body and not ast.get_docstring(tree)]

    assert silent == []


def test_every_logger_is_ours_to_set_up() -> None:
    """Loggers are called taskbus.…: others would write past the format, the level and the masking of secrets."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("getLogger")
        and not (node.args and isinstance(node.args[0], ast.Constant) and str(node.args[0].value).startswith("taskbus"))
    ]

    assert wrong == []


@pytest.mark.skipif(not os.environ.get("CI"), reason="on a laptop tests of a client that is not installed are skipped")
def test_no_client_is_missing_in_ci() -> None:
    """What tests are skipped without is there, so that none of them is left out unseen."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    clients = {name for text in texts for name in re.findall(r'importorskip\("([\w.]+)"', text)}
    assert "confluent_kafka" in clients
    assert [name for name in sorted(clients) if find_spec(name) is None] == []
