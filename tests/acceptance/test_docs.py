"""What the documentation says is so: its examples run, its links lead somewhere, its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import bus
from task.exits import Exit
from tests.doc_runner import check_document, read_document

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
#: Documents whose examples a test of their own runs.
ELSEWHERE = {
    "docs/tasks.md": "tests/unit/test_docs_tasks.py",
    "docs/buses/nats.md": "tests/connected/test_nats_docs.py",
}
OURS = [path for path in DOCUMENTS if str(path.relative_to(ROOT)) not in ELSEWHERE]
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`((?:tests|bus)/[\w/]+\.py)(?:::(\w+))?`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[tuple[int, str]]:
    """The Python examples that are not shown as a file, each with the line before its first."""
    shown = {step.line for step in read_document(text) if not hasattr(step, "output")}
    found = [(text[: match.start(1)].count("\n"), match[1]) for match in _PYTHON.finditer(text)]
    return [(line, block) for line, block in found if line not in shown]


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    below = text[text.index(f"\n{heading}\n") :]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table, f"no table below {heading!r}"
    lines = [re.sub(r"\\\|", "¦", line) for line in table[0].splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("path", [path for path in OURS if read_document(path.read_text())], ids=name_of)
def test_console_examples_do_what_they_show(path: Path, tmp_path: Path) -> None:
    """Every command prints what the document says."""
    check_document(path, tmp_path)


@pytest.mark.parametrize("path", [path for path in OURS if blocks(path.read_text())], ids=name_of)
def test_python_examples_run(path: Path, tmp_path: Path) -> None:
    """The Python examples of a document, one after another in one module, run without a warning."""
    module = tmp_path / "example.py"
    text = ""
    for line, block in blocks(path.read_text()):
        text += "\n" * (line - text.count("\n")) + block
    module.write_text(text)

    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import example"], cwd=tmp_path, capture_output=True, text=True
    )

    assert run.returncode == 0, f"line numbers are those of {path}:\n{run.stderr}"


def test_documents_run_elsewhere_have_a_test() -> None:
    """A document left out here is named by the test that runs it."""
    for document, test in ELSEWHERE.items():
        assert Path(document).name in (ROOT / test).read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link names a file of this repository, and a heading of it."""
    for link in _LINK.findall(_FENCED.sub("", path.read_text())):
        if re.match(r"https?://|mailto:", link):
            continue
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{name_of(path)} links to {link}"
        if heading:
            assert heading in anchors(target.read_text()), f"{name_of(path)} links to {link}"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a text."""
    headings = _HEADING.findall(_FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_named_tests_exist(path: Path) -> None:
    """A test that a document names as its evidence is there."""
    for file, test in _TEST.findall(path.read_text()):
        assert (ROOT / file).is_file(), f"{name_of(path)} names {file}"
        if test:
            assert re.search(rf"\bdef {test}\(", (ROOT / file).read_text()), f"{name_of(path)} names {file}::{test}"


def test_every_decision_is_listed() -> None:
    """The list of decisions names each page, under the title it has."""
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"^- \[(.*)\]\((.*)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    pages = {path.name: path.read_text().partition("\n")[0].removeprefix("# ") for path in folder.glob("0*.md")}
    assert {file: title for title, file in listed} == pages


def test_readme_begins_with_the_make_targets() -> None:
    """The first commands of the README are the demo and the tests, and the Makefile has them."""
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^make (\S+)", text, re.MULTILINE)
    assert targets[:2] == ["demo", "test"]
    assert set(targets) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_readme_shows_the_example_worker() -> None:
    """The worker of the README is examples/hello.py."""
    files = {step.name: step.text for step in read_document((ROOT / "README.md").read_text()) if hasattr(step, "name")}
    assert files["hello.py"] == (ROOT / "examples" / "hello.py").read_text()


def test_readme_lists_every_bus() -> None:
    """The table of the README has the buses there are, each with its tier of durability."""
    listed = {}
    for names, _, tier, *_ in rows((ROOT / "README.md").read_text(), "## Buses"):
        for scheme in re.findall(r"`(\w+):", names):
            listed[scheme] = tier.partition(" ")[0]
    assert listed == {scheme: bus.load(known).capabilities.durability.name for scheme, known in built_in().items()}


def built_in() -> dict[str, bus.Adapter]:
    return {scheme: known for scheme, known in bus.adapters().items() if known.module.startswith("bus.")}


def test_capability_table_is_what_the_adapters_declare() -> None:
    """The table of docs/buses.md is the one the adapters' declarations make."""
    text = (ROOT / "docs" / "buses.md").read_text()
    assert capability_table() in text, f"put this into docs/buses.md:\n\n{capability_table()}"


def capability_table() -> str:
    """A row for each capability, a column for each adapter."""
    schemes: dict[str, list[str]] = {}
    for scheme, known in sorted(built_in().items()):
        schemes.setdefault(known.module, []).append(scheme)
    columns = [bus.connect(_example(names[0])).capabilities.describe() for names in schemes.values()]
    heads = [", ".join(f"`{name}`" for name in names) for names in schemes.values()]
    lines = ["| Capability | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for capability in columns[0]:
        lines.append(f"| `{capability}` | " + " | ".join(_cell(capability, declared) for declared in columns) + " |")
    return "\n".join(lines) + "\n"


def _example(scheme: str) -> str:
    return f"{scheme}://example" if scheme in ("kafka", "nats", "nsq", "pubsub") else f"{scheme}:example"


def _cell(capability: str, declared: dict[str, object]) -> str:
    value = declared[capability]
    if isinstance(value, bool):
        return "yes" if value else "–"
    if value is None:
        unlimited = capability == "max_size" or (capability == "lease_ceiling" and declared["lease"])
        return "any" if unlimited else "–"
    if value == "unlimited":
        return "any"
    if isinstance(value, (int, float)):
        return f"{value / 1024**2:g} MiB" if capability == "max_size" else f"{value:g} s"
    return str(value)


def test_exit_codes_are_those_of_the_code() -> None:
    """docs/guarantees.md lists every exit code of an application."""
    listed = {
        int(code): name.strip("`")
        for code, name, *_ in rows((ROOT / "docs/guarantees.md").read_text(), "## Exit codes")
    }
    assert listed == {int(code): code.name for code in Exit}


@pytest.mark.parametrize("path", sorted(ROOT.glob("assets/*.svg")), ids=name_of)
def test_diagrams_are_accessible_and_self_contained(path: Path) -> None:
    """A diagram has a title, a description and its words as text, and loads nothing from elsewhere."""
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(path).getroot()
    ids = {root.find(f"{svg}{name}").get("id") for name in ("title", "desc")}  # type: ignore[union-attr]
    assert set(root.get("aria-labelledby", "").split()) == ids
    assert len(list(root.iter(f"{svg}text"))) > 10
    assert not re.search(r"href|@import|<script|url\((?!#)", path.read_text())
