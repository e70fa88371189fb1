"""The examples of docs/cli.md do what the page says."""

from __future__ import annotations

from pathlib import Path

from tests.doc_runner import check_document

DOCS = Path(__file__).parents[2] / "docs"


def test_examples_of_the_command_line(tmp_path: Path) -> None:
    """Every command of the page prints what is shown below it."""
    assert check_document(DOCS / "cli.md", tmp_path) > 30
