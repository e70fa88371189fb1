"""Files of this machine, and of what is mounted on it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from taskmasters.files.entry import Entry
from taskmasters.files.source import Folder, ListingError

__all__ = ["LocalSource", "is_network"]

_MOUNTS = "/proc/self/mountinfo"
#: File systems whose changes by other machines this one is not told of.
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "lustre", "afs", "vboxsf", "virtiofs")


class LocalSource:
    """Links to files are followed, links to folders only where the pattern names them."""

    def look(self, folder: str) -> Iterator[Entry | Folder]:
        """What is in a folder."""
        yield from _scan(folder, follow=True)

    def find(self, folder: str) -> Iterator[Entry]:
        """All files in it and below, without following links to folders, which may lead back."""
        waiting = [folder]
        while waiting:
            for found in _scan(waiting.pop(), follow=False):
                if isinstance(found, Folder):
                    waiting.append(found.path)
                else:
                    yield found

    def stat(self, path: str) -> Entry | None:
        """One file."""
        try:
            return _entry(path, os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ListingError(f"cannot look at {path}: {error.strerror}") from None

    def check(self, root: str) -> None:
        """A folder may come yet."""


def _scan(folder: str, *, follow: bool) -> Iterator[Entry | Folder]:
    try:
        with os.scandir(folder) as found:
            for item in found:
                path = f"{folder.rstrip('/')}/{item.name}"
                if item.is_dir(follow_symlinks=follow):
                    yield Folder(path)
                    continue
                try:
                    entry = _entry(path, item.stat())
                except (FileNotFoundError, NotADirectoryError):
                    continue  # gone since, or a link to nothing
                if entry is not None:
                    yield entry
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ListingError(f"cannot look into {error.filename or folder}: {error.strerror}") from None


def _entry(path: str, found: os.stat_result) -> Entry | None:
    if not stat.S_ISREG(found.st_mode):
        return None
    return Entry(path, found.st_size, found.st_mtime, f"{found.st_size}-{found.st_mtime_ns}")


def is_network(folder: str) -> bool:
    """Whether a folder lies on a file system that other machines may change without this one being told."""
    best, kind = "", ""
    path = os.path.realpath(folder)
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                mount = before.split()[4].encode().decode("unicode_escape")
                inside = mount == "/" or path == mount or path.startswith(mount + "/")
                if inside and len(mount) >= len(best):
                    best, kind = mount, after.split()[0]
    except OSError:
        return False
    return kind.startswith(_NETWORK)
