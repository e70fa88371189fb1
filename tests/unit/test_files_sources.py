"""Where files are looked for: this machine, fsspec's memory, an S3 server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import MissingExtraError
from taskmasters.files.entry import Entry
from taskmasters.files.local import LocalSource, is_network
from taskmasters.files.pattern import PathPattern
from taskmasters.files.rules import FileRule, load_file_rules
from taskmasters.files.scanner import look
from taskmasters.files.source import Folder, ListingError, Source, open_source, walk
from taskmasters.zone import find_zone

ZONE = find_zone("UTC")


def found(source: Source, pattern: str, also: str = "") -> list[str]:
    """Paths below, as a look finds them."""
    parsed = PathPattern(pattern, ZONE, 0.0)
    (glob,) = parsed.globs(0.0)
    beside = parsed.beside(also) if also else None
    paths = [entry.path for entry in walk(source, glob, also)]
    return sorted(path for path in paths if parsed.match(path) or (beside and beside.fullmatch(path)))


def tree(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_local_files(tmp_path: Path) -> None:
    """Files and links to them; no folders, no links to nothing; links to folders where they are named."""
    tree(tmp_path, "in/a.json", "in/x/b.json", "in/x/y/c.json", "in/[z]/d.json", "other/e.json")
    (tmp_path / "in" / "folder.json").mkdir()
    (tmp_path / "in" / "link.json").symlink_to(tmp_path / "other" / "e.json")
    (tmp_path / "in" / "nothing.json").symlink_to(tmp_path / "no")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in" / "pipe.json")
    source = LocalSource()
    base = f"{tmp_path}/in"

    assert found(source, f"{base}/*.json") == [f"{base}/a.json", f"{base}/link.json"]
    assert found(source, f"{base}/*/*.json") == [
        *(f"{base}/[z]/d.json", f"{base}/loop/a.json", f"{base}/loop/link.json", f"{base}/x/b.json"),
    ]
    deep = [f"{base}/[z]/d.json", f"{base}/a.json", f"{base}/link.json", f"{base}/x/b.json", f"{base}/x/y/c.json"]
    assert found(source, f"{base}/**/*.json") == deep
    assert found(source, f"{base}/x/b.json") == [f"{base}/x/b.json"]
    assert found(source, f"{tmp_path}/no/*") == []
    assert found(source, f"{base}/a.json/*") == []
    assert source.stat(f"{base}/no") is None


def test_markers_are_found_beside_the_files(tmp_path: Path) -> None:
    """Though the pattern is not for them."""
    tree(tmp_path, "x/a.json", "x/_SUCCESS", "_SUCCESS")
    assert found(LocalSource(), f"{tmp_path}/*/*.json", "_SUCCESS") == [
        f"{tmp_path}/x/_SUCCESS",
        f"{tmp_path}/x/a.json",
    ]


def test_a_version_is_size_and_time(tmp_path: Path) -> None:
    """Whatever changes either is another version."""
    tree(tmp_path, "a")
    source, path = LocalSource(), tmp_path / "a"
    versions = []
    for size, time in ((1, 10), (1, 11), (2, 11), (1, 10)):
        path.write_text("x" * size)
        os.utime(path, ns=(time, time))
        entry = source.stat(str(path))
        assert entry is not None
        versions.append(entry.version)
    assert versions[0] == versions[3]
    assert len(set(versions)) == 3


def rule(folder: Path, path: str, more: str = "") -> FileRule:
    (folder / "rules.toml").write_text(f'[[rule]]\ntype = "load"\npath = "{path}"\n{more}')
    return load_file_rules(str(folder / "rules.toml"))[0]


class Broken(LocalSource):
    """A source of which one folder cannot be looked into."""

    def look(self, folder: str) -> Iterator[Entry | Folder]:
        if folder.endswith("/bad"):
            raise ListingError(f"cannot look into {folder}: Input/output error")
        yield from super().look(folder)


def test_a_look_that_fails_says_so(tmp_path: Path) -> None:
    """What it had found before is told, and that it is not all."""
    tree(tmp_path, "bad/a", "good/b")
    entries, trouble = look(rule(tmp_path, f"{tmp_path}/*/*"), Broken(), 0.0)
    assert trouble == f"cannot look into {tmp_path}/bad: Input/output error"
    assert {entry.path for entry in entries} <= {f"{tmp_path}/good/b"}


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """It is an error that names it, not an empty folder."""
    if os.geteuid() == 0:
        # Root may read everything: a name that is too long fails in the same place.
        with pytest.raises(ListingError, match="File name too long"):
            found(LocalSource(), f"{tmp_path}/{'x' * 300}/*")
        return
    (tmp_path / "in").mkdir(mode=0)
    with pytest.raises(ListingError, match="Permission denied"):
        found(LocalSource(), f"{tmp_path}/in/*")


def test_network_disks_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kind of the innermost file system."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"23 22 0:5 / {tmp_path}/net rw shared:1 - nfs4 host:/x rw\n"
        f"24 23 0:6 / {tmp_path}/net/in\\040side rw - tmpfs tmpfs rw\n"
    )
    monkeypatch.setattr("taskmasters.files.local._MOUNTS", str(table))
    answers = [is_network(f"{tmp_path}/{name}") for name in ("", "net", "net/deeper", "network", "net/in side")]
    assert answers == [False, True, True, False, False]


def test_memory(tmp_path: Path) -> None:
    """fsspec's own store behaves like any other, and tells each time what is there then."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/test-memory/in/a.json", b"1")
    memory.pipe("/test-memory/in/x/b.json", b"1")
    try:
        source = open_source("memory")
        base = "memory://test-memory/in"
        assert found(source, f"{base}/*.json") == [f"{base}/a.json"]
        assert found(source, f"{base}/**/*.json") == [f"{base}/a.json", f"{base}/x/b.json"]
        memory.pipe("/test-memory/in/c.json", b"1")
        assert found(source, f"{base}/*.json") == [f"{base}/a.json", f"{base}/c.json"]
        assert found(source, "memory://test-memory/no/*") == []
        entry = source.stat(f"{base}/a.json")
        assert entry is not None
        assert entry.size == 1
    finally:
        memory.rm("/test-memory", recursive=True)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra to install."""
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.delitem(sys.modules, "taskmasters.files.remote", raising=False)
    with pytest.raises(MissingExtraError, match=r"paths with s3:// need fsspec: pip install 'taskbus\[s3\]'"):
        open_source("s3")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of an S3 server of our own."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


# What the clients themselves do is not ours to mend.
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")
def test_s3(s3: str, tmp_path: Path) -> None:
    """Listing, versions, a bucket that is not there, a server that is away."""
    import boto3

    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="lake")
    for name in ("in/2026/a.json", "in/2026/x/b c.json", "in/empty/", "in/_SUCCESS"):
        client.put_object(Bucket="lake", Key=name, Body=b"1")
    source = open_source("s3", s3)

    assert found(source, "s3://lake/in/*/*.json") == ["s3://lake/in/2026/a.json"]
    assert found(source, "s3://lake/in/**/*.json") == ["s3://lake/in/2026/a.json", "s3://lake/in/2026/x/b c.json"]
    assert found(source, "s3://lake/in/**") == [
        *("s3://lake/in/2026/a.json", "s3://lake/in/2026/x/b c.json", "s3://lake/in/_SUCCESS"),
    ]
    before = source.stat("s3://lake/in/2026/a.json")
    (listed,) = walk(source, next(PathPattern("s3://lake/in/2026/*.json", ZONE, 0.0).globs(0.0)))
    assert before == listed
    client.put_object(Bucket="lake", Key="in/2026/a.json", Body=b"2")
    after = source.stat("s3://lake/in/2026/a.json")
    assert before is not None
    assert after is not None
    assert before.version != after.version
    assert after.mtime > 1e9
    assert source.stat("s3://lake/no") is None

    entries, trouble = look(rule(tmp_path, "s3://lake/no/*"), source, 0.0)
    assert (entries, trouble) == ([], "")
    entries, trouble = look(rule(tmp_path, "s3://no-lake/in/*"), source, 0.0)
    assert trouble == "there is no bucket s3://no-lake, or it may not be looked into"


@pytest.mark.filterwarnings("default::DeprecationWarning", "default::ResourceWarning")
def test_s3_that_is_away(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, not an empty bucket."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        source = open_source("s3", f"http://127.0.0.1:{free.getsockname()[1]}")
        entries, trouble = look(rule(tmp_path, "s3://lake/in/*"), source, 0.0)
    assert entries == []
    assert trouble.startswith("cannot look into s3://lake/in: ")
