"""Secrets in files, and hosts that are this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus import BusURLError
from bus.credentials import is_loopback, read_secret


def test_a_secret_is_what_the_file_holds(tmp_path: Path) -> None:
    """Without the newline that an editor puts behind it."""
    (tmp_path / "secret").write_text("  canary\n")

    assert read_secret("nats", "token_file", str(tmp_path / "secret")) == "canary"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"canary\xff", "no file of UTF-8")],
)
def test_a_file_without_a_secret(tmp_path: Path, content: bytes | None, says: str) -> None:
    """The error names adapter, option and path, and shows nothing of the file."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(BusURLError) as caught:
        read_secret("kafka", "password_file", str(path))

    assert str(caught.value).startswith(f"kafka: password_file {path}")
    assert says in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_path_that_is_none() -> None:
    """A null byte in it is no traceback."""
    with pytest.raises(BusURLError, match="cannot be read"):
        read_secret("kafka", "ca", "a\0b")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.evil.org", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    """A name that only looks like it is not."""
    assert is_loopback(host) is here
