"""The examples of ``docs/buses/nats.md`` do what they show, on a server they start themselves."""

from __future__ import annotations

from pathlib import Path

from tests.doc_runner import check_document
from tests.servers.nats import nats_server
from tests.servers.process import free_port

_PAGE = Path(__file__).parents[2] / "docs" / "buses" / "nats.md"


def test_the_page_of_the_bus(tmp_path: Path) -> None:
    """Each command prints what the page says. Only the port is another, as 4222 may be taken."""
    (tmp_path / "probe").mkdir()
    with nats_server(tmp_path / "probe"):
        pass  # skips where there is no server to start
    page = tmp_path / "nats.md"
    page.write_text(_PAGE.read_text().replace("4222", str(free_port())))
    (tmp_path / "empty").mkdir()
    check_document(page, tmp_path / "empty")
