"""The files taskmaster on a server that speaks Google Cloud Storage's API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmasters.files.pattern import PathPattern
from taskmasters.files.scanner import look
from taskmasters.files.source import open_source, walk
from tests.acceptance.test_files import running, waiting
from tests.acceptance.test_taskmasters import published
from tests.helpers import wait_until
from tests.servers.gcs import GcsServer
from tests.unit.test_files_sources import ZONE, found, rule

# What the client itself does is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """A server."""
    server = GcsServer(tmp_path_factory.mktemp("gcs"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_listing_and_versions(gcs: GcsServer, tmp_path: Path) -> None:
    """Listing, versions (an upload of the same bytes is one too), a bucket that is not there."""
    gcs.make_bucket("lake")
    for name in ("in/2026/a.json", "in/2026/x/b c.json", "in/_SUCCESS"):
        gcs.put("lake", name, b"1")
    source = open_source("gs", gcs.url, anonymous=True)

    assert found(source, "gs://lake/in/*/*.json") == ["gs://lake/in/2026/a.json"]
    assert found(source, "gs://lake/in/**/*.json") == ["gs://lake/in/2026/a.json", "gs://lake/in/2026/x/b c.json"]
    before = source.stat("gs://lake/in/2026/a.json")
    (listed,) = walk(source, next(PathPattern("gs://lake/in/2026/*.json", ZONE, 0.0).globs(0.0)))
    assert before == listed
    gcs.put("lake", "in/2026/a.json", b"1")
    after = source.stat("gs://lake/in/2026/a.json")
    assert before is not None
    assert after is not None
    assert before.version != after.version
    assert after.mtime > 1e9
    assert source.stat("gs://lake/no") is None

    entries, trouble = look(rule(tmp_path, "gs://lake/no/*"), source, 0.0)
    assert (entries, trouble) == ([], "")
    entries, trouble = look(rule(tmp_path, "gs://no-lake/in/*"), source, 0.0)
    assert entries == []
    assert trouble == "there is no bucket gs://no-lake, or it may not be looked into"


def test_as_a_process(gcs: GcsServer, tmp_path: Path) -> None:
    """Objects are sent as they come, and not again after a restart; a store that goes away is told of."""
    gcs.make_bucket("arrivals")
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\npath = "gs://arrivals/in/**/*.json"\ntype = "load"\npoll = "200ms"\nanonymous = true\n'
        f'endpoint = "{gcs.url}"\n'
    )
    env = {"PYTHONWARNINGS": "default"}
    gcs.put("arrivals", "in/a.json", b"1")
    with running(tmp_path, env=env):
        gcs.put("arrivals", "in/x/b.json", b"1")
        wait_until(lambda: waiting(tmp_path) == 2, 60)
    with running(tmp_path, env=env):
        gcs.put("arrivals", "out/d.json", b"1")
        gcs.put("arrivals", "in/c.json", b"1")
        wait_until(lambda: waiting(tmp_path) == 3, 60)
        gcs.stop()
        wait_until(lambda: "look-failed" in (tmp_path / "log").read_text(), 120)
    values = sorted(task.value for task in published(tmp_path, "load"))
    assert values == [f"gs://arrivals/in/{name}.json" for name in ("a", "c", "x/b")]
