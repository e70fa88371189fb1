"""The examples of docs/tasks.md run as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python example of the page runs, in order, as one module; a failure shows its line in the page."""
    text = PAGE.read_text()
    module = ModuleType("docs_tasks")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    for example in EXAMPLE.finditer(text):
        lines = text.count("\n", 0, example.start(1))
        exec(compile("\n" * lines + example[1], PAGE, "exec"), vars(module))

    assert vars(module)["done"].result == "complete"
    assert len(EXAMPLE.findall(text)) == text.count("```python")


def test_codes_are_documented() -> None:
    """The table of codes is that of the DecodeError docstring."""
    from task.errors import DecodeError

    assert re.findall(r"^\| `([a-z]+-[a-z]+)` \|", PAGE.read_text(), re.MULTILINE) == re.findall(
        r"``([a-z]+-[a-z]+)``", DecodeError.__doc__ or ""
    )
