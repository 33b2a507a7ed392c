"""Raw files: what COPY reads, as it lies in the data folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from thano_assets.assets.kind import AssetKind, described
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.copies import source_of
from thano_assets.catalog import Entry
from thano_assets.errors import ThanoError
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.reading.source import RawSource
from thano_assets.resources.workspace import Workspace
from thano_assets.sql.statements import Copy


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Look at the files of a COPY and fingerprint their content.

    Raises:
        PathRefused: a path leads out of the workspace.
        DataFileError: a file is missing or of a kind that is not read.
    """
    sources = sources_of(node.entry, runtime.workspace)
    files = [path for source in sources for path in source.files]
    size = sum(source.bytes for source in sources)
    return Outcome(
        data_version=version_of(sources),
        summary=f"{len(files)} file{'s' if len(files) != 1 else ''}, {size:,} bytes",
        facts={
            "files": "\n".join(str(path) for path in files[:100]),
            "file count": len(files),
            "bytes": size,
            "format": ", ".join(sorted({source.format for source in sources})),
        },
        details={"files": file_digests(sources, runtime.workspace)},
    )


def sources_of(entry: Entry, workspace: Workspace) -> list[RawSource]:
    """The files that the COPY statements of a table read, one source a statement.

    Raises:
        PathRefused, DataFileError: see :func:`thano_assets.resources.files.resolve`.
    """
    return [
        source_of(statement, workspace)
        for statement in entry.statements
        if isinstance(statement, Copy) and statement.path is not None
    ]


def version_of(sources: list[RawSource], digest: Callable[[Path], str] | None = None) -> str:
    """The data version of raw files: of their content, free of names and times."""
    return "-".join(source.fingerprint(digest)[:16] for source in sources)


def content_of(entry: Entry, workspace: Workspace, digest: Callable[[Path], str]) -> str:
    """The data version that the files of ``entry`` have now, or why they have none."""
    try:
        return version_of(sources_of(entry, workspace), digest)
    except ThanoError as error:
        return unreadable(error)


def unreadable(error: ThanoError) -> str:
    """What stands for the content of files that cannot be read now."""
    return f"unreadable: {hashlib.sha256(error.message.encode()).hexdigest()[:8]}"


def file_digests(
    sources: list[RawSource], workspace: Workspace, digest: Callable[[Path], str] | None = None
) -> dict[str, str]:
    """Digests by the names that a person knows the files by: below the data folder, else whole paths."""
    found = {}
    for source in sources:
        for path in source.files:
            inside = path.is_relative_to(workspace.data)
            name = path.relative_to(workspace.data).as_posix() if inside else str(path)
            found[name] = source.digest(path, digest)[:16]
    return found


_ICONS = {
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "parquet": "parquet",
    "xlsx": "excel",
}


def _icons(node: Node) -> frozenset[str]:
    path = next((s.path for s in node.entry.statements if isinstance(s, Copy) and s.path), "")
    ending = path.lower().removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[-1]
    return frozenset({"file", _ICONS.get(ending, "file")})


KIND = AssetKind(
    NodeKind.RAW,
    materialize,
    description=described("The file that COPY reads into the table {name}."),
    icons=_icons,
)
