"""What PREDICT sends through the model again: all rows first, then with ten new ones, then with none.

    python benchmarks/incremental_predictions.py                    # 10,000 rows, a tiny model
    python benchmarks/incremental_predictions.py --prebuilt         # the pre-built ELECTRA classifier
    python benchmarks/incremental_predictions.py --rows 1000000     # memory, too

Each statement runs in a process of its own, so that its peak memory is its own. Rows are counted at the
model's call. The first process that has a model to load pays for its imports; the last one has none.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orchestration import register

TEXTS = (
    "SELECT n, 'row ' || n || ': ' || translate(CAST(hash(n) AS VARCHAR), '0123456789', 'abcdefghij') "
    "AS text FROM range({rows}) AS t(n)"
)


def peak() -> int:
    """Most memory that this process has had, MB; the child of a large process inherits its ``ru_maxrss``."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def predict(folder: Path, model: str, rows: int) -> dict[str, object]:
    """Run the statement in this process."""
    from thano_assets.session import Session

    seen = 0
    with Session(folder / "w") as session:
        session.execute(f"CREATE OR REPLACE TABLE texts AS {TEXTS.format(rows=rows)}")
        before = peak()
        started = time.perf_counter()
        result = session.execute(
            f"CREATE OR REPLACE TABLE answers AS PREDICT USING {model} OPTIONS (proba=False) AS "
            "SELECT * FROM texts"
        )
        seconds = time.perf_counter() - started
        record = session._open_runner().records([("predictions", "answers")])["predictions", "answers"]
        seen = int(record.details["rows_run"])
    return {
        "rows": rows,
        "through the model": seen,
        "seconds": round(seconds, 2),
        "peak MB": peak(),
        "before PREDICT": before,
        "torch imported": "torch" in sys.modules,
        "summary": result.summary,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--prebuilt", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        folder, model, rows = asked.one
        print(json.dumps(predict(Path(folder), model, int(rows))))
        return
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("duckdb", "torch", "transformers")]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {', '.join(libraries)}")
    print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    with tempfile.TemporaryDirectory(prefix="thano-") as name:
        from thano_assets.session import Session

        model = "electra" if asked.prebuilt else "tiny"
        with Session(Path(name) / "w") as session:
            if asked.prebuilt:
                session.execute("GET THANOSQL MODEL electra OPTIONS (model_name='electra')")
            else:
                register(session, Path(name) / "tiny")
        for rows in (asked.rows, asked.rows + 10, asked.rows + 10):
            command = [sys.executable, __file__, "--one", name, model, str(rows)]
            told = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(told.stdout.splitlines()[-1])
            print("  " + ", ".join(f"{key} {value}" for key, value in found.items()))
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
