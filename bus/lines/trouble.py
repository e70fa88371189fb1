"""From the operating system's errors to ours."""

from __future__ import annotations

import errno

from bus.errors import BusError, BusURLError, FullError, OutputClosedError, UnauthorisedError, UnreachableError

__all__ = ["explain"]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_BAD_PATH = {
    errno.ENOENT: "it, or a directory on the way to it, does not exist",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "it is a directory; name a file",
    errno.ELOOP: "it is a symbolic link, which is not followed; name the file itself",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: "it is a socket or a device; name a file, a pipe or -",
    errno.EBADF: "it is closed or not open in this direction",
}


def explain(error: OSError, doing: str, *, topic: str | None = None) -> BusError:
    """The error of :mod:`bus.errors` for ``error``, met while ``doing`` (as in ``cannot append to done.jsonl``)."""
    code = error.errno or 0
    reason = (error.strerror or str(error)).lower()
    if code == errno.EPIPE:
        return OutputClosedError(f"{doing}: its reader has gone", topic=topic)
    if code in _NO_ROOM:
        return FullError(f"{doing}: {reason}; nothing of it is visible: make room and it goes on", topic=topic)
    if code in _FORBIDDEN:
        return UnauthorisedError(f"{doing}: {reason}; change its permissions or run as its owner", topic=topic)
    if code in _BAD_PATH:
        return BusURLError(f"{doing}: {_BAD_PATH[code]}", topic=topic)
    return UnreachableError(f"{doing}: {reason}", topic=topic)
