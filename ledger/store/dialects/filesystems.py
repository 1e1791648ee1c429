"""File systems of other machines, on which an SQLite file is not safe."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTED = Path("/proc/self/mountinfo")
"""What is mounted where, on Linux."""

_NETWORKS = {
    *("afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs"),
    *("lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs"),
    *("fuse.ceph-fuse", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs"),
    *("fuse.mount.davfs", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs"),
}
"""The kinds that several machines may mount at once, or that are a server's behind a bridge."""


def network_of(path: Path) -> str | None:
    """Return the kind of the network file system that a path is on; None if it is on no known one.

    On other systems than Linux it is not known.
    """
    try:
        # As bytes: as text, a carriage return, which a name may have, would end a line.
        mounted = _MOUNTED.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError:
        return None
    place, kind = Path("/"), ""
    # Cut at these two alone, which are escaped in names: other blanks and line ends are not.
    for line in filter(None, mounted.split("\n")):
        before, _, after = line.partition(" - ")
        folder = Path(_unescaped(before.split(" ")[4]))
        # What is mounted later hides what was mounted there before.
        if path.is_relative_to(folder) and len(folder.parts) >= len(place.parts):
            place, kind = folder, after.split(" ")[0]
    return kind if kind in _NETWORKS else None


def _unescaped(name: str) -> str:
    """Return a name in which blanks and backslashes are written as they are."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
