"""Answers that a model version gave before, kept so that no text goes through it twice.

They lie in ``snapshots/answers/<version>/`` as Parquet files that are written once, each whole or not at all,
so any number of processes may add some at once and a kill loses only what was not written yet. They are a
saving and nothing else: the folder may be deleted at any time.

A version's folder is named by all that decides its answers: the digest of its weights, the other files of
its model (configuration with the text limit, tokenizer), and the version of our code. Device, precision and
the company that a text has in its batch move probabilities in their last digits only, so they are left
out: an answer stays what it was when it was first given, also on another machine, and a label changes with
the version alone.

A text is known by the first 128 bits of its SHA-256. Among a thousand million texts two share them with a
chance of about 1 in 10^21, and nobody knows how to make two that do.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from thano_assets.catalog.kinds import CODE_VERSIONS
from thano_assets.graph import NodeKind
from thano_assets.resources.warehouse import as_source, literal, quote
from thano_assets.system import file_digest, remove_abandoned, scratch_path

if TYPE_CHECKING:
    import duckdb

    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

T = TypeVar("T")

#: More files than this in a version's folder are made one.
MOST_PARTS = 24
#: Files of at least this size are left as they are when others are made one, bytes.
WHOLE_PART = 64 * 1024**2
#: All answers of a workspace together; the versions that were used least lately go first, bytes.
MOST_BYTES = 2 * 1024**3
#: All files of vectors that are searched; those that were used least lately go first, bytes.
MOST_VECTOR_BYTES = 4 * 1024**3

# What Python's str.strip takes for white space, as DuckDB's regular expressions say it.
_NO_SPACE = r"[^\s\p{Z}\x0b\x1c-\x1f\x85]"
_TRIES = 20


def text_key(text: str) -> str:
    """SQL for the key of a text, a ``UUID``; ``text`` is an SQL expression of type ``VARCHAR``."""
    return f"CAST(left(sha256({text}), 32) AS UUID)"


def has_text(text: str) -> str:
    """SQL that is true where the SQL expression ``text`` is neither NULL nor blank."""
    return f"coalesce(regexp_matches({text}, '{_NO_SPACE}'), false)"


@dataclass(frozen=True)
class PredictionCache:
    """The kept answers of one model version: rows of ``key`` UUID, ``p`` FLOAT[], ``cut`` INTEGER.

    ``p`` are the probabilities in the order of the model's outputs; ``cut`` is the number of tokens that were
    read of a text that is longer, else 0. An environment also reads the ``borrowed`` folder of production.
    Keywords have the ``type`` VARCHAR in place of FLOAT[].
    """

    folder: Path
    borrowed: Path | None = None
    type: str = "FLOAT[]"

    @classmethod
    def of(cls, version: ModelVersion, workspace: Workspace) -> PredictionCache:
        """Those of ``version``; nothing is read or made yet."""
        return cls.named(_name(version, CODE_VERSIONS[NodeKind.PREDICTION]), workspace)

    @classmethod
    def of_vectors(cls, model: ModelVersion | str, workspace: Workspace) -> PredictionCache:
        """Embeddings by a registered version, or by the base model with that identity; ``p`` is a vector."""
        return cls._of_base(model, f"vectors {CODE_VERSIONS[NodeKind.EMBEDDING]}", workspace)

    @classmethod
    def of_features(cls, model: ModelVersion | str, reading: str, workspace: Workspace) -> PredictionCache:
        """What a frozen encoder gave the head that is trained on it; ``p`` is the first token's vector."""
        return cls._of_base(model, f"features {reading}", workspace)

    @classmethod
    def of_keywords(cls, model: ModelVersion | str, settings: str, workspace: Workspace) -> PredictionCache:
        """Keywords by a model and certain settings; ``p`` is a JSON text."""
        found = cls._of_base(model, f"keywords {CODE_VERSIONS[NodeKind.SEARCH]} {settings}", workspace)
        return replace(found, type="VARCHAR")

    @classmethod
    def _of_base(cls, model: ModelVersion | str, code: str, workspace: Workspace) -> PredictionCache:
        if isinstance(model, str):
            rest = hashlib.sha256(code.encode()).hexdigest()
            return cls.named(f"{_weights(model)}-{rest[:16]}", workspace)
        return cls.named(_name(model, code), workspace)

    @classmethod
    def named(cls, name: str, workspace: Workspace) -> PredictionCache:
        """Those in the folder of that name."""
        lender = workspace.production
        return cls(_root(workspace) / name, None if lender is None else _root(lender) / name)

    def parts(self) -> list[Path]:
        """The files of :attr:`folder`, oldest first."""
        return sorted(self.folder.glob("part-*.parquet"))

    def vectors_path(self, of: str) -> Path:
        """The file with the vectors of a table's rows; ``of`` says which, and changes when they do."""
        return self.folder / f"vectors-{hashlib.sha256(of.encode()).hexdigest()[:32]}.arrow"

    def recall(self, connection: duckdb.DuckDBPyConnection, wanted: str, table: str) -> None:
        """Make ``table`` of the known answers to the distinct keys that the query ``wanted`` gives."""
        # Two processes may have answered the same text at the same time: min() decides for one for good.
        self._reading(
            lambda parts: connection.execute(
                f"CREATE TABLE {table} AS SELECT a.key, min(a.p) AS p, max(a.cut) AS cut "
                f"FROM {parts} a SEMI JOIN ({wanted}) w ON a.key = w.key GROUP BY a.key"
            )
        )
        with suppress(OSError):
            os.utime(self.folder)  # used now, so it is among the last to make room

    def count_unknown(self, connection: duckdb.DuckDBPyConnection, wanted: str) -> int:
        """How many of the distinct keys that the query ``wanted`` gives have no answer yet."""
        found = self._reading(
            lambda parts: connection.execute(
                f"SELECT count(*) FROM ({wanted}) w ANTI JOIN {parts} a ON a.key = w.key"
            ).fetchall()
        )
        return int(found[0][0])

    def keep(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        """Add the answers of ``table``, in one file that appears whole.

        Raises:
            OSError, duckdb.IOException: the folder cannot be written, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(connection, f"SELECT key, p, cut FROM {table}")

    def tidy(self, workspace: Workspace) -> None:
        """Make many small files one, remove what killed processes left, and keep to :data:`MOST_BYTES`."""
        with suppress(OSError):
            remove_abandoned(self.folder)
            if len(self.parts()) > MOST_PARTS:
                self._merge()
            _make_room(workspace, self.folder)

    def _merge(self) -> None:
        import duckdb
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.folder / ".merge.lock", timeout=0), duckdb.connect() as connection:
                connection.execute(f"SET temp_directory = {literal(str(self.folder / '.merging'))}")
                small = [part for part in self.parts() if part.stat().st_size < WHOLE_PART]
                merged = f"SELECT key, min(p) AS p, max(cut) AS cut FROM {self._relation(small)} GROUP BY key"
                self._write(connection, merged)
                for part in small:  # after a kill in between both are there, which does no harm
                    part.unlink(missing_ok=True)
        except (Timeout, FileNotFoundError, duckdb.IOException):
            return  # another process is at it

    def _write(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        name = uuid.uuid4().hex
        temporary = scratch_path(self.folder)
        try:
            connection.execute(
                # In the order of the keys, so that a few texts are found without reading the whole file.
                f"COPY ({query} ORDER BY key) TO {literal(str(temporary))} "
                "(FORMAT parquet, ROW_GROUP_SIZE 20480)"
            )
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(self.folder / f"part-{time.time_ns():020d}-{name}.parquet")
        finally:
            temporary.unlink(missing_ok=True)

    def _reading(self, work: Callable[[str], T]) -> T:
        """Do ``work`` with the SQL relation of all parts, again where a part went away meanwhile."""
        import duckdb

        spoilt: set[Path] = set()
        for _ in range(_TRIES):
            parts = self.parts()
            if self.borrowed is not None:
                parts += sorted(self.borrowed.glob("part-*.parquet"))
            parts = [part for part in parts if part not in spoilt]
            try:
                return work(self._relation(parts))
            except (duckdb.IOException, duckdb.InvalidInputException):
                if not all(part.exists() for part in parts):
                    continue  # another process has just made several files one
                found = set(_unreadable(parts))
                if not found:
                    raise
                spoilt |= found
                for part in found:
                    if part.parent == self.folder:
                        part.unlink(missing_ok=True)
        return work(self._relation([]))

    def _relation(self, parts: list[Path]) -> str:
        """SQL for the rows of some files; of none it has the right types."""
        nothing = f"(SELECT CAST(NULL AS UUID) AS key, CAST(NULL AS {self.type}) AS p, 0 AS cut WHERE false)"
        return _relation(parts) if parts else nothing


def unanswered(
    connection: duckdb.DuckDBPyConnection, relation_sql: str, text_column: str, answers: PredictionCache
) -> int:
    """How many distinct texts of a relation have no answer yet, without missing and blank ones.

    Args:
        connection: Where the relation is known; it must be allowed to read ``snapshots/``.
        relation_sql: A query, or a table's name as it stands in SQL (quoted where it needs be).
        text_column: The column with the texts.
        answers: Those that are kept.
    """
    text = f"CAST({quote(text_column)} AS VARCHAR)"
    source = as_source(relation_sql)
    wanted = f"SELECT DISTINCT {text_key(text)} AS key FROM {source} WHERE {has_text(text)}"
    return answers.count_unknown(connection, wanted)


def forget(workspace: Workspace, data_version: str) -> None:
    """Remove the answers of the versions with that data version: the same weights."""
    for folder in _folders(workspace):
        if folder.name.partition("-")[0] == _weights(data_version):
            shutil.rmtree(folder, ignore_errors=True)


def size(workspace: Workspace) -> tuple[int, int]:
    """Versions with kept answers, and the bytes that these take."""
    folders = list(_folders(workspace))
    return len(folders), sum(map(_bytes, folders))


def _root(workspace: Workspace) -> Path:
    return workspace.snapshots / "answers"


def _folders(workspace: Workspace) -> Iterator[Path]:
    root = _root(workspace)
    if root.is_dir():
        yield from (folder for folder in root.iterdir() if folder.is_dir())


def _name(version: ModelVersion, code: str) -> str:
    rest = hashlib.sha256(code.encode())
    for file in sorted(version.path.iterdir()):
        if file.is_file() and file.suffix != ".safetensors":
            rest.update(f"\n{file.name}:{file_digest(file)}".encode())
    return f"{_weights(version.data_version)}-{rest.hexdigest()[:16]}"


def _weights(data_version: str) -> str:
    """A data version as the first part of a folder's name; that of a version not made here is a sentence."""
    plain = re.fullmatch(r"[0-9a-f]{16,64}", data_version)
    return data_version if plain else hashlib.sha256(data_version.encode()).hexdigest()[:32]


def _relation(parts: list[Path]) -> str:
    return f"read_parquet([{', '.join(literal(str(part)) for part in parts)}])"


def _unreadable(parts: list[Path]) -> Iterator[Path]:
    """Files that a broken disk or a power cut has spoilt."""
    import duckdb

    with duckdb.connect() as connection:
        for part in parts:
            try:
                connection.execute(f"SELECT min(key), max(cut), max(p) FROM {_relation([part])}").fetchall()
            except duckdb.Error:
                yield part


def _bytes(folder: Path) -> int:
    with suppress(OSError), os.scandir(folder) as files:
        return sum(file.stat().st_size for file in files if not file.name.startswith("vectors-"))
    return 0


def _make_room(workspace: Workspace, used: Path) -> None:
    """Remove what was used least lately until the rest is within the bounds of this module."""
    files = [path for folder in _folders(workspace) for path in folder.glob("vectors-*.arrow")]
    room = MOST_VECTOR_BYTES
    for path in sorted(files, key=lambda one: one.stat().st_mtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
    sizes = {folder: _bytes(folder) for folder in _folders(workspace)}
    total = sum(sizes.values())
    for folder in sorted(sizes, key=lambda one: one.stat().st_mtime):
        if total <= MOST_BYTES:
            return
        if folder != used:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
