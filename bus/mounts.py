"""On what kind of file system a path is. https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html"""

from __future__ import annotations

import os
import re
import shutil

from bus.facts import Fact, unknown

__all__ = ["NETWORK", "VOLATILE", "file_facts", "file_system"]

#: File systems that other machines may write to, or whose locks are not those of one machine.
NETWORK = frozenset(
    [
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "beegfs",
        "gpfs",
        "glusterfs",
        "ocfs2",
        "gfs2",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.gcsfuse",
        "fuse.rclone",
        "fuse.juicefs",
        "fuse.blobfuse2",
    ]
)
#: File systems that are gone after a restart.
VOLATILE = frozenset(("tmpfs", "ramfs"))

_MOUNTS = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")


def file_system(path: str, mounts: str = _MOUNTS) -> str:
    """The type of the file system that holds ``path``, or would. Raises OSError if the system does not tell."""
    real = os.path.realpath(path)
    best, found = "", ""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            fields = before.split()
            if len(fields) < 5 or not after:
                continue
            point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
            inside = point == "/" or real == point or real.startswith(point + "/")
            # The later one of two mounts at the same place covers the earlier.
            if inside and len(point) >= len(best):
                best, found = point, after.split()[0]
    if not found:
        raise OSError(f"{mounts} names no file system for {real}")
    return found


def file_facts(path: str, mounts: str = _MOUNTS) -> list[Fact]:
    """``file.exists``, ``file.system`` (its type) and ``file.free`` (bytes left on it)."""
    facts = [Fact("file.exists", os.path.exists(path), path)]
    try:
        facts.append(Fact("file.system", file_system(path, mounts), path))
    except OSError as error:
        facts.append(unknown("file.system", path, error))
    folder = os.path.realpath(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    facts.append(Fact("file.free", shutil.disk_usage(folder).free, path))
    return facts
