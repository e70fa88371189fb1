"""The operating system's errors in the words of ``bus.errors``."""

from __future__ import annotations

import errno
import os

import pytest

import bus
from bus.lines.trouble import explain


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EPIPE, bus.OutputClosedError),
        (errno.ENOSPC, bus.FullError),
        (errno.EDQUOT, bus.FullError),
        (errno.EIO, bus.FullError),
        (errno.EFBIG, bus.FullError),
        (errno.EACCES, bus.UnauthorisedError),
        (errno.EPERM, bus.UnauthorisedError),
        (errno.EROFS, bus.UnauthorisedError),
        (errno.ENOENT, bus.BusURLError),
        (errno.ENOTDIR, bus.BusURLError),
        (errno.EISDIR, bus.BusURLError),
        (errno.ELOOP, bus.BusURLError),
        (errno.ENAMETOOLONG, bus.BusURLError),
        (errno.ENXIO, bus.BusURLError),
        (errno.EBADF, bus.BusURLError),
        (errno.ESTALE, bus.UnreachableError),
    ],
)
def test_every_error_has_its_kind_and_names_what_it_met(code: int, kind: type[bus.BusError]) -> None:
    """The kind decides whether it is tried again; the text says what was being done to what."""
    error = explain(OSError(code, os.strerror(code)), "cannot append to done.jsonl", topic="done")

    assert type(error) is kind
    assert str(error).startswith("cannot append to done.jsonl: ")
    assert error.topic == "done"
