"""A workspace as today's version makes it, kept for the versions after it.

``python -m tests.golden.workspace FOLDER`` makes it in a new folder, and packs it as ``workspace.tar.xz``.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from thano_assets.resources.environments import open_workspace

PACKED = Path(__file__).with_name("workspace.tar.xz")
_BUILD = (
    "BUILD MODEL 분류 USING ElectraEn OPTIONS (epochs={}, batch_size=8, baseline=False, overwrite=True, "
    "text_col='review', label_col='stars', schedule='0 3 * * 1') AS SELECT * FROM reviews"
)
#: What made it, in turn; SCRIPT is what it is up to date with.
FIRST = _BUILD.format(1)
SCRIPT = f"""
COPY reviews FROM 'reviews.jsonl';
CREATE TABLE best AS SELECT review, stars FROM reviews WHERE stars = 5;
EXPECT count(*) = 40 ON reviews;
{_BUILD.format(2)};
CREATE TABLE answers AS PREDICT USING 분류 AS SELECT review FROM reviews;
CREATE TABLE scores AS EVALUATE USING 분류 OPTIONS (text_col='review', label_col='stars') AS SELECT * FROM reviews;
CREATE TABLE "the words" AS EXPLAIN PREDICT USING 분류 OPTIONS (text_col='review') AS SELECT review FROM best LIMIT 3;
PREDICT USING 분류 VERSION 1 AS SELECT review FROM best;
"""


def unpack(folder: Path) -> Path:
    """The workspace, unpacked into ``folder``."""
    with tarfile.open(PACKED) as archive:
        archive.extractall(folder, filter="data")
    return folder / "workspace"


def main(root: Path) -> None:
    """Make the workspace at ``root``, which must not exist, and pack it."""
    from tests.conftest import small_classifier
    from tests.session.conftest import with_small_base, write_rows
    from thano_assets.session import Session

    with tempfile.TemporaryDirectory() as folder:
        workspace = with_small_base(open_workspace(root), small_classifier(Path(folder)))
        rows: list[dict[str, object]] = [
            {"review": f"{'xy'[n % 2]} {'abcdefgh'[n % 8]} {'ab' * (n % 5)}", "stars": 1 + n % 5}
            for n in range(40)
        ]
        write_rows(workspace, "reviews.jsonl", rows)
        with Session(root) as session:
            session.execute("COPY reviews FROM 'reviews.jsonl'")
            session.execute(FIRST)
            for step in session.script(session.parse(SCRIPT)):
                session.execute_step(step)
    with tarfile.open(PACKED, "w:xz") as archive:
        archive.add(root, "workspace", filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]))
