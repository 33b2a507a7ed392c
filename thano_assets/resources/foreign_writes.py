"""Whether another program wrote a DuckDB file since we did.

DuckDB counts the checkpoints of a file in the headers at its beginning (three blocks of 4096 bytes; a
checkpoint writes one of them), and what was committed since the last one is in its write-ahead log beside it.
So these bytes, and the log's size and time, change with every write and with nothing else. What they were
after our last write is noted in a small file; where they are no longer that, somebody else wrote.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

_HEADERS = 3 * 4096


def mark(database: Path) -> str:
    """What stands for all writes of others: stays the same through our writes, and changes with theirs.

    Where nothing was noted yet it starts over. Call it while none of us may write.
    """
    now = _state(database)
    with suppress(OSError, ValueError, KeyError):
        noted = json.loads(_note(database).read_text(encoding="utf-8"))
        if noted["state"] == now:
            return str(noted["mark"])
    return now


def note(database: Path, mark: str) -> None:
    """Note that what was written since :func:`mark` gave ``mark`` was written by us.

    A note that cannot be made, or was lost to a kill, leaves our write to count as that of others.
    """
    with suppress(OSError):
        told = json.dumps({"state": _state(database), "mark": mark})
        _note(database).write_text(told, encoding="utf-8")


def _state(database: Path) -> str:
    digest = hashlib.sha256()
    with suppress(OSError), database.open("rb") as file:
        digest.update(file.read(_HEADERS))
    with suppress(OSError):
        status = database.with_name(f"{database.name}.wal").stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def _note(database: Path) -> Path:
    return database.with_name(f"{database.name}.note")
