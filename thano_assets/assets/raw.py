"""Raw files: what COPY reads, as it lies in the data folder."""

from __future__ import annotations

from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.graph import Node
from thano_assets.resources.files import raw_source
from thano_assets.sql.statements import Copy


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Look at the files of a COPY and fingerprint their content.

    Raises:
        PathRefused: a path leads out of the workspace.
        DataFileError: a file is missing or of a kind that is not read.
    """
    sources = [
        raw_source(runtime.workspace, path=statement.path)
        for statement in node.entry.statements
        if isinstance(statement, Copy) and statement.path is not None
    ]
    files = [path for source in sources for path in source.files]
    size = sum(source.bytes for source in sources)
    outcome = Outcome(
        data_version="-".join(source.fingerprint()[:16] for source in sources),
        summary=f"{len(files)} file{'s' if len(files) != 1 else ''}, {size:,} bytes",
        facts={
            "files": "\n".join(str(path) for path in files[:100]),
            "file count": len(files),
            "bytes": size,
            "format": ", ".join(sorted({source.format for source in sources})),
        },
    )
    return outcome
