"""Digests of files, remembered as long as a file's size and times stay, over processes too."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from ..system import write_atomically

# A file that was written a moment ago may be written again without its time showing it.
_SETTLED_NS = 2_000_000_000


class FileDigests:
    """SHA-256 of files, kept in a small file so that an unchanged file is read once.

    Args:
        path: Where to remember them; losing it costs time only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[object]] | None = None
        self._changed = False

    def of(self, file: Path) -> str:
        """The digest of the content, as hex.

        Raises:
            OSError: the file cannot be read.
        """
        state = file.stat()
        stamp: list[object] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
        known = self._load()
        found = known.get(str(file))
        if found is not None and found[:4] == stamp:
            return str(found[4])
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NS:
            known[str(file)] = [*stamp, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Write what was learned; a folder that cannot be written is no reason to stop."""
        if self._changed and self._known is not None:
            try:
                write_atomically(self._path, json.dumps(self._known))
            except OSError:
                return
            self._changed = False

    def _load(self) -> dict[str, list[object]]:
        if self._known is None:
            try:
                content = json.loads(self._path.read_text(encoding="utf-8"))
                self._known = content if isinstance(content, dict) else {}
            except (OSError, ValueError):
                self._known = {}
        return self._known
