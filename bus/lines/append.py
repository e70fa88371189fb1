"""Appending to a regular file so that a batch is there wholly or not at all."""

from __future__ import annotations

import contextlib
import os

__all__ = ["append", "ends_torn", "sync_directory", "sync_file", "take_back"]

#: Data and length on the disk; times of the file may lag.
sync_file = getattr(os, "fdatasync", os.fsync)


def ends_torn(fd: int, size: int) -> bool:
    """Whether the file's last byte is not a newline: its last writer was interrupted. False where it cannot be read."""
    if size == 0:
        return False
    with contextlib.suppress(OSError):
        return os.pread(fd, 1, size - 1) != b"\n"
    # Opened for writing only, as the shell's >> does.
    with contextlib.suppress(OSError), open(f"/dev/fd/{fd}", "rb", buffering=0) as reading:
        return os.pread(reading.fileno(), 1, size - 1) != b"\n"
    return False


def append(fd: int, data: bytes) -> int:
    """Append to a regular file held under a lock; on any error it is as it was. Returns where ``data`` begins.

    Raises:
        OSError: no room, or the disk failed.
    """
    begin = -1
    left = memoryview(data)
    try:
        while left:
            written = os.write(fd, left)
            if begin < 0:
                # Not the size seen before: somebody who does not lock (echo >> file) may have been faster.
                begin = os.lseek(fd, 0, os.SEEK_CUR) - written
            left = left[written:]
    except OSError:
        if begin >= 0:
            take_back(fd, begin)
        raise
    return begin


def take_back(fd: int, begin: int) -> None:
    """Undo an :func:`append`, unless somebody has appended after it."""
    if os.lseek(fd, 0, os.SEEK_CUR) == os.fstat(fd).st_size:
        os.ftruncate(fd, begin)
        os.lseek(fd, begin, os.SEEK_SET)


def sync_directory(path: str) -> None:
    """Make the directory entry of ``path`` as durable as its contents."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
