"""COPY of a large CSV file against DuckDB's own CREATE TABLE AS FROM read_csv on the same file.

    python benchmarks/copy_csv.py

Each side runs in a process of its own that stays warm; the two take turns, and the ratio is taken of each
pair. Peak memory is that of each side's process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from thano_assets.resources.environments import open_workspace

TARGET = 1.2


def make_csv(path: Path, rows: int, words: int) -> None:
    """Write ``rows`` rows of five columns; the text column has about ``words`` words, some with quotes."""
    chance = random.Random(7)
    vocabulary = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(8000)
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write("id,review,sentiment,score,day\n")
        for number in range(rows):
            text = " ".join(chance.choices(vocabulary, k=chance.randint(words // 2, words * 3 // 2)))
            if number % 10 == 0:
                text = text[:20] + ' ""well"", ' + text[20:]
            label = "positive" if chance.random() < 0.5 else "negative"
            day = f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}"
            file.write(f'{number},"{text}",{label},{chance.random():.4f},{day}\n')


def duckdb_side(folder: Path, csv: Path) -> Callable[[], int]:
    """DuckDB alone: open, CREATE TABLE AS, close."""
    database = folder / "plain.duckdb"

    def run() -> int:
        database.unlink(missing_ok=True)
        with duckdb.connect(str(database)) as connection:
            connection.execute(f"CREATE OR REPLACE TABLE t AS SELECT * FROM read_csv('{csv}')")
            return connection.execute("SELECT count(*) FROM t").fetchall()[0][0]

    return run


def session_side(folder: Path, csv: Path) -> Callable[[], int]:
    """A whole COPY statement through the session."""
    from thano_assets.session import Session

    workspace = open_workspace(folder / "workspace")
    shutil.copy2(csv, workspace.data / csv.name)
    small = workspace.data / "small.csv"
    small.write_text("a\n1\n", encoding="utf-8")
    session = Session(workspace)
    session.execute("COPY warm FROM 'small.csv'")  # imports Dagster and makes its instance
    count = 0

    def run() -> int:
        nonlocal count
        count += 1
        if count > 1:
            session.execute("DROP TABLE t")
        begun = time.perf_counter()
        session.execute(f"COPY t FROM '{csv.name}'")
        run.seconds = time.perf_counter() - begun  # type: ignore[attr-defined]  # without the DROP
        table = session.execute("SELECT count(*) AS rows FROM t").table
        assert table is not None
        return table.column("rows")[0].as_py()

    return run


def serve(side: str, folder: Path, csv: Path) -> None:
    """Run the side once for each line on standard input; answers with a line of JSON each."""
    run = {"duckdb": duckdb_side, "session": session_side}[side](folder, csv)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        rows = run()
        seconds = getattr(run, "seconds", time.perf_counter() - begun)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak / 1024}), flush=True)


class Side:
    """A warm process that runs one side on demand."""

    def __init__(self, name: str, folder: Path, csv: Path) -> None:
        folder.mkdir()
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, str(folder), str(csv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit(f"The side {self.name} ended with exit code {self.process.wait()}.")

    def run(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=60, help="words in a row's text, on average")
    parser.add_argument("--runs", type=int, default=7, help="pairs that count, after one that does not")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--serve", nargs=3, metavar=("SIDE", "FOLDER", "CSV"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        side, folder, csv = arguments.serve
        serve(side, Path(folder), Path(csv))
        return 0

    with tempfile.TemporaryDirectory(prefix="thano-copy-", dir=arguments.folder) as temporary:
        folder = Path(temporary)
        csv = folder / "reviews.csv"
        make_csv(csv, arguments.rows, arguments.words)
        versions = {name: importlib.metadata.version(name) for name in ("duckdb", "dagster")}
        print(f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")
        size = csv.stat().st_size / 1e6
        print(f"{arguments.rows:,} rows, {size:,.0f} MB; {arguments.runs} pairs, taking turns")
        plain, ours = (
            Side("duckdb", folder / "plain", csv),
            Side("session", folder / "ours", csv),
        )
        pairs = []
        for number in range(arguments.runs + 1):
            first, second = (plain, ours) if number % 2 == 0 else (ours, plain)
            answers = {first.name: first.run()}
            answers[second.name] = second.run()
            assert {answer["rows"] for answer in answers.values()} == {arguments.rows}
            if number:
                pairs.append((answers[plain.name], answers[ours.name]))
        plain.stop()
        ours.stop()

    for name, place in ((plain.name, 0), (ours.name, 1)):
        seconds = [pair[place]["seconds"] for pair in pairs]
        peak = max(pair[place]["peak_mb"] for pair in pairs)
        print(
            f"{name:10} {min(seconds):.2f} / {statistics.median(seconds):.2f} / {max(seconds):.2f} s "
            f"(min / median / max), peak {peak:,.0f} MB"
        )
    ratios = [pair[1]["seconds"] / pair[0]["seconds"] for pair in pairs]
    middle = statistics.median(ratios)
    print(
        f"ratio      {min(ratios):.3f} / {middle:.3f} / {max(ratios):.3f} (min / median / max); "
        f"aim: at most {TARGET}: {'met' if middle <= TARGET else 'missed'}"
    )
    return 0 if middle <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
