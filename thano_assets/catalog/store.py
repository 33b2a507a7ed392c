"""The catalog's files: one ``.sql`` file an entry, written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from thano_assets.catalog.entries import Entry, EntryKind, is_about
from thano_assets.errors import WorkspaceError
from thano_assets.system import write_atomically

# Characters that some file system forbids; the rest of Unicode stays readable.
_UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|%]|^\.')


def _file_name(name: str) -> str:
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name) + ".sql"


def _read(path: Path) -> str:
    """A statement's text.

    Raises:
        FileNotFoundError: it is gone.
        WorkspaceError: it is no file of text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WorkspaceError(
            f"{path} is not UTF-8.", hint="Save it as UTF-8, or delete it and give the statement again."
        ) from error
    except IsADirectoryError as error:
        raise WorkspaceError(f"{path} is a folder.", hint="Move it away.") from error


class Catalog:
    """The entries under one folder (``statements/`` of a workspace).

    Names are looked up without regard to case, as DuckDB does; the spelling of the file is kept.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def entries(self) -> list[Entry]:
        """Every entry, ordered by kind and name."""
        return [entry for kind in EntryKind for entry in self._of_kind(kind)]

    def _of_kind(self, kind: EntryKind) -> Iterator[Entry]:
        folder = self.root / kind.value
        if not folder.is_dir():
            return
        for path in sorted(folder.glob("*.sql")):
            if path.name.startswith("."):  # a temporary file of a writer that was killed
                continue
            try:
                text = _read(path)
            except FileNotFoundError:  # dropped by another process since the listing
                continue
            yield Entry(kind, unquote(path.stem), text)

    def names(self, *kinds: EntryKind) -> list[str]:
        """The names of the entries of ``kinds`` (all, where none is given), sorted."""
        found: list[str] = []
        for kind in kinds or EntryKind:
            folder = self.root / kind.value
            if folder.is_dir():
                found.extend(unquote(p.stem) for p in folder.glob("*.sql") if not p.name.startswith("."))
        return sorted(found)

    def relation(self, name: str) -> Entry | None:
        """The entry that makes the warehouse table ``name``, if there is one."""
        for kind in EntryKind:
            if kind.is_relation and (entry := self.get(kind, name)):
                return entry
        return None

    def model(self, name: str) -> Entry | None:
        """The entry that makes the model ``name``, if there is one."""
        return self.get(EntryKind.MODEL, name)

    def expectations(self, table: str) -> list[Entry]:
        """The entries of the EXPECT statements about ``table``."""
        named = (Entry(EntryKind.CHECK, name, "") for name in self.names(EntryKind.CHECK))
        found = (self.get(EntryKind.CHECK, check.name) for check in named if is_about(check, table))
        return [entry for entry in found if entry is not None]

    def get(self, kind: EntryKind, name: str) -> Entry | None:
        """The entry of that kind and name, ``None`` where there is none."""
        path = self._find(kind, name)
        if path is None:
            return None
        try:
            return Entry(kind, unquote(path.stem), _read(path))
        except FileNotFoundError:
            return None

    def written(self, entry: Entry) -> float:
        """When the entry was last kept, in seconds since the epoch; 0 where its file is gone."""
        path = self._find(entry.kind, entry.name)
        try:
            return path.stat().st_mtime if path is not None else 0.0
        except FileNotFoundError:
            return 0.0

    def _find(self, kind: EntryKind, name: str) -> Path | None:
        folder = self.root / kind.value
        exact = folder / _file_name(name)
        try:
            if exact.exists():
                return exact
        except OSError:  # longer than the name of a file may be
            return None
        if folder.is_dir():
            wanted = exact.name.casefold()
            for path in folder.glob("*.sql"):
                if path.name.casefold() == wanted:
                    return path
        return None

    def put(self, entry: Entry) -> None:
        """Keep ``entry`` in place of whatever had its name."""
        replaced = [
            path
            for kind in EntryKind
            if kind is entry.kind or (kind.is_relation and entry.kind.is_relation)
            if (path := self._find(kind, entry.name)) is not None
        ]
        target = self.root / entry.kind.value / _file_name(entry.name)
        write_atomically(target, entry.text)
        for path in replaced:
            # Where the file system takes Foo.sql and foo.sql for one file, it has just been written.
            if path.exists() and not path.samefile(target):
                path.unlink(missing_ok=True)

    def remove(self, kind: EntryKind, name: str) -> bool:
        """Forget the entry; tells whether there was one."""
        path = self._find(kind, name)
        if path is None:
            return False
        path.unlink(missing_ok=True)
        return True
