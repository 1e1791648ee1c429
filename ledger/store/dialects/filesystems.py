"""File systems of other machines, on which an SQLite file is not safe."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTED = Path("/proc/self/mountinfo")
"""The list of mounts on Linux."""

_NETWORKS = {
    *("afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs"),
    *("lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs"),
    *("fuse.ceph-fuse", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs"),
    *("fuse.mount.davfs", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs", "fuse.sshfs"),
}
"""The kinds of file systems that several machines may mount at once, or that lead to a server."""


def network_of(path: Path) -> str | None:
    """Return the kind of network file system that a path is on, None if it is on none or unknown.

    On systems other than Linux it is unknown.
    """
    try:
        # Read as bytes: as text, a carriage return in a name would end a line.
        mounted = _MOUNTED.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError:
        return None
    whole, place, kind = f"{path}/", "", ""
    # Split only at these two characters, which are escaped in names. Other blanks and line ends are
    # not escaped.
    for line in filter(None, mounted.split("\n")):
        before, _, after = line.partition(" - ")
        folder = _unescaped(before.split(" ")[4]).rstrip("/")
        # A later mount hides an earlier one at the same place.
        if whole.startswith(f"{folder}/") and len(folder) >= len(place):
            place, kind = folder, after.split(" ")[0]
    return kind if kind in _NETWORKS else None


def _unescaped(name: str) -> str:
    """Return a name without the escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
