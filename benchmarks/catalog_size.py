"""What a large catalog costs: loading the code location, and PLAN of one statement.

    python benchmarks/catalog_size.py                 # 10, 100 and 1,000 statements

The catalog is a quarter each of COPY, CREATE TABLE AS, BUILD MODEL and PREDICT, in chains of four. Each
figure is the median of fresh processes, in processor time. Loading is everything that Dagster's code
server does before it answers: imports, ``defs()``, the repository with its schedules, and the snapshot
of it that the web server and the daemon are sent. PLAN is counted after imports and after one PLAN of
another statement.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from thano_assets.resources.environments import open_workspace

LOAD_TARGET, PLAN_TARGET = 5.0, 0.3

LOAD = """
import time
started = time.process_time()
from thano_assets.definitions import defs
imported = time.process_time()
repository = defs().get_repository_def()
built = time.process_time()
from dagster._core.remote_representation.external_data import RepositorySnap
snap = RepositorySnap.from_def(repository, defer_snapshots=True)
sent = time.process_time()
print(imported - started, built - imported, sent - built, sent - started, len(snap.asset_nodes))
"""

PLAN = """
import time
from thano_assets.session import Session
with Session() as session:
    session.plan("CREATE OR REPLACE TABLE t_1 AS SELECT text FROM raw_1")
    started = time.process_time()
    result = session.plan("CREATE OR REPLACE TABLE p_0 AS PREDICT USING m_0 AS SELECT text FROM t_0 LIMIT 9")
    print(time.process_time() - started, result.row_count)
"""


def fill(root: Path, count: int) -> None:
    """Make a workspace whose catalog has ``count`` statements; nothing is materialized."""
    from thano_assets.catalog import Catalog, entry_of
    from thano_assets.sql import parse

    workspace = open_workspace(root)
    (workspace.data / "rows.csv").write_text(
        "text,label\n" + "".join(f"film {n},{n % 2}\n" for n in range(100)), encoding="utf-8"
    )
    catalog = Catalog(workspace.statements)
    for number in range((count + 3) // 4):
        statements = [
            f"COPY raw_{number} FROM 'rows.csv' OPTIONS (overwrite=True, schedule='0 3 * * 1')",
            f"CREATE OR REPLACE TABLE t_{number} AS\n"
            f"SELECT text, label, count(*) OVER (PARTITION BY label) AS n FROM raw_{number}\n"
            "WHERE text IS NOT NULL AND label >= 0",
            f"BUILD MODEL m_{number} USING ElectraEn OPTIONS (max_epochs=1, overwrite=True)\n"
            f"AS SELECT text, label FROM t_{number}",
            f"CREATE OR REPLACE TABLE p_{number} AS\nPREDICT USING m_{number} AS SELECT text FROM t_{number}",
        ]
        for text in statements[: count - 4 * number]:
            entry = entry_of(parse(text)[0])
            assert entry is not None
            catalog.put(entry)


def measured(code: str, root: Path, repeats: int) -> list[list[float]]:
    """The numbers that ``code`` prints, of each of so many fresh processes."""
    environment = {**os.environ, "THANO_WORKSPACE": str(root), "DAGSTER_HOME": str(root / "dagster")}
    found = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found.append([float(word) for word in done.stdout.split()[-5:]])
    return found


def main() -> int:
    """Print the growth as a table; the exit code tells whether the targets are met at the largest size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| statements | assets | imports s | defs + repository s | snapshot s | load s | PLAN s |")
    print("|---|---|---|---|---|---|---|")
    load = plan = 0.0
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="thano-catalog-") as folder:
            root = Path(folder) / "workspace"
            fill(root, size)
            parts = [
                statistics.median(column)
                for column in zip(*measured(LOAD, root, options.repeats), strict=True)
            ]
            plans = [row[0] for row in measured(PLAN, root, options.repeats)]
        load, plan = parts[3], statistics.median(plans)
        shown = " | ".join(f"{seconds:.2f}" for seconds in (*parts[:4], plan))
        print(f"| {size:,} | {parts[4]:,.0f} | {shown} |", flush=True)
    print(f"\nTargets at the largest size: load at most {LOAD_TARGET} s, PLAN at most {PLAN_TARGET} s.")
    return int(load > LOAD_TARGET or plan > PLAN_TARGET)


if __name__ == "__main__":
    sys.exit(main())
