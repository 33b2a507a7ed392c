"""SEARCH TEXT over a table of vectors, against numpy's matrix product and top-k over the same vectors.

    python benchmarks/search_text.py                          # 100,000 vectors of 384 numbers
    python benchmarks/search_text.py --rows 1000000 --pairs 5
    python benchmarks/search_text.py --memory 100000 300000   # peak memory of a first and of a later search

All sides take turns; each finds the rows of the same 1,000 nearest vectors. "search" is what a warm SEARCH
TEXT does to find them: product, top-k, and exact cosines with ties in the rows' order. "rows" is that and
DuckDB reading these rows, whole, and holding them against the file. "cold" maps the file anew, as the first
search of a process does. "statement" is Session.execute: parsing, the plan, Dagster's run, the table.
numpy's side has its matrix in memory already; "numpy, fetched" gets it from the warehouse first, as a script
without SEARCH TEXT has to; "DuckDB's scan" is array_cosine_distance with ORDER BY and LIMIT.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

SEARCH = (
    "CREATE OR REPLACE TABLE found AS SEARCH TEXT USING SBERTEn "
    "OPTIONS (search_input='{}', emb_col='v', top_k={}) AS SELECT * FROM vectors"
)


def table(rows: int, size: int, start: int = 0) -> pa.Table:
    """Random unit vectors in clusters, so that some are near each other."""
    centres = np.random.default_rng(0).standard_normal((64, size), dtype=np.float32)
    rng = np.random.default_rng([1, start])
    found = centres[rng.integers(0, 64, rows)] + rng.standard_normal((rows, size), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), size)
    return pa.table({"id": np.arange(start, start + rows), "v": vectors})


def fill(session: object, rows: int, size: int) -> None:
    """Make the table ``vectors`` by a statement, as a user has it, 20,000 rows at a time."""
    import pyarrow.parquet as pq

    place = session.workspace.data / "vectors.parquet"  # type: ignore[attr-defined]
    with pq.ParquetWriter(place, table(1, size).schema) as writer:
        for start in range(0, rows, 20_000):
            writer.write_table(table(min(20_000, rows - start), size, start))
    session.execute(  # type: ignore[attr-defined]
        f"COPY vectors_raw FROM '{place.name}'; CREATE OR REPLACE TABLE vectors AS "
        f"SELECT id, CAST(v AS FLOAT[{size}]) AS v FROM vectors_raw"
    )


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long ``work`` takes."""
    started = clock()
    work()
    return clock() - started


def memory(rows: int, size: int, top_k: int) -> None:
    """Print the peak memory of two searches, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="thano-") as name:
        for step in ("fill", "import", "first", "later"):
            told = subprocess.run(
                [
                    *(sys.executable, __file__, "--step", step, name, "--rows", str(rows)),
                    *("--size", str(size), "--top-k", str(top_k)),
                ],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            if step != "fill":
                print(f"  {rows:,} vectors, {step}: peak {int(told[-1]):,} MB")


def one_step(step: str, folder: Path, rows: int, size: int, top_k: int) -> None:
    """A part of :func:`memory`; prints this process's peak memory in MB."""
    from thano_assets.session import Session

    with Session(folder / "w") as session:
        if step == "fill":
            fill(session, rows, size)
            session.execute(SEARCH.format("warm", 1).replace("vectors", "(SELECT * FROM vectors LIMIT 1)"))
        elif step == "import":
            session.execute("CREATE OR REPLACE TABLE one AS SELECT 1 AS n")
        else:
            session.execute(SEARCH.format("warm", top_k))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--top-k", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument(
        "--processor", action="store_true", help="processor time, for a machine that does other work too"
    )
    parser.add_argument("--memory", type=int, nargs="+", help="measure memory with so many rows instead")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        one_step(asked.step[0], Path(asked.step[1]), asked.rows, asked.size, asked.top_k)
        return
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("duckdb", "numpy", "pyarrow")]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {', '.join(libraries)}")
    print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    for rows in asked.memory or ():
        memory(rows, asked.size, asked.top_k)
    if not asked.memory:
        compare(asked)
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


def compare(asked: argparse.Namespace) -> None:
    """Time all sides in turns."""
    from thano_assets.assets.predictions.searches import nearest
    from thano_assets.assets.predictions.vector_index import PlainRows, SearchInFile
    from thano_assets.learning.nearest import VectorFile
    from thano_assets.session import Session
    from thano_assets.sql.rowwise import rowwise

    with tempfile.TemporaryDirectory(prefix="thano-") as name, Session(Path(name) / "w") as session:
        fill(session, asked.rows, asked.size)
        warehouse = session._runtime.warehouse
        statement = SEARCH.format("a boring film", asked.top_k)
        first = seconds(lambda: session.execute(statement))
        second = seconds(lambda: session.execute(SEARCH.format("a good film", asked.top_k)))
        print(
            f"first statement, which loads the model and writes the file: {first:.2f} s; next: {second:.2f} s"
        )
        [path] = session.workspace.snapshots.glob("answers/*/vectors-*.arrow")
        with warehouse.read() as connection:
            column = connection.sql("SELECT v FROM vectors").to_arrow_table().column(0).combine_chunks()
        matrix = column.flatten().to_numpy().reshape(asked.rows, asked.size)
        query = matrix[7].copy()
        plain = rowwise("SELECT * FROM vectors")
        assert plain is not None
        sql = nearest("vectors", "v", query, "near", asked.top_k)

        def file() -> VectorFile:
            found = VectorFile.opened(path)
            assert found is not None
            return found

        def by_numpy(vectors: np.ndarray) -> np.ndarray:
            scores = vectors @ query
            best = np.argpartition(-scores, asked.top_k)[: asked.top_k]
            return best[np.argsort(-scores[best])]

        def fetched() -> np.ndarray:
            with warehouse.read() as connection:
                column = connection.sql("SELECT v FROM vectors").to_arrow_table().column(0).combine_chunks()
            return by_numpy(column.flatten().to_numpy().reshape(asked.rows, asked.size))

        def scanned() -> pa.Table:
            with warehouse.read() as connection:
                return connection.sql(sql).to_arrow_table()

        def read() -> pa.Table:
            search = SearchInFile(PlainRows(plain, ""), file(), "v", query, asked.top_k)
            with (
                warehouse.read() as connection,
                search.found(connection, "near", search.same_vectors()) as (rows, _, _),
            ):
                return connection.sql(rows).to_arrow_table()

        told, plainly, by_duckdb = read().column("id").to_numpy(), by_numpy(matrix), scanned()
        same = np.isin(told, plainly).mean(), np.isin(told, by_duckdb.column("id").to_numpy()).mean()
        gap = np.abs(np.sort(read().column("near")) - np.sort(by_duckdb.column("near"))).max()
        print(
            f"{asked.rows:,} vectors of {asked.size} numbers, the nearest {asked.top_k:,}: {same[0]:.2%} the "
            f"same rows as numpy, {same[1]:.2%} as DuckDB's scan, cosines within {gap:.1e} of DuckDB's"
        )
        texts = iter(f"{word} film" for word in range(10_000))
        for text in range(asked.pairs + 1):  # what is searched for is embedded before
            session.execute(SEARCH.format(f"{text} film", 1))
        ways: dict[str, Callable[[], object]] = {
            "numpy, matrix in memory": lambda: by_numpy(matrix),
            "search": lambda: file().nearest(query, asked.top_k),
            "search, cold": lambda: VectorFile(path).nearest(query, asked.top_k),
            "rows": read,
            "numpy, fetched": fetched,
            "DuckDB's scan": scanned,
            "statement": lambda: session.execute(SEARCH.format(next(texts), asked.top_k)),
            "statement without a search": lambda: session.execute(
                f"CREATE OR REPLACE TABLE found_too AS SELECT * FROM found LIMIT {asked.top_k}"
            ),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(asked.pairs + 1):
            for way, work in ways.items():
                times[way].append(seconds(work, time.process_time if asked.processor else time.perf_counter))
        against = times["numpy, matrix in memory"][1:]  # the first round warms up
        for way, taken in times.items():
            kept = taken[1:]
            ratios = [a / b for a, b in zip(kept, against, strict=True)]
            print(
                f"  {way}: {statistics.median(kept) * 1e3:.1f} ms ({min(kept) * 1e3:.1f} to "
                f"{max(kept) * 1e3:.1f}); {statistics.median(ratios):.2f} times numpy in memory "
                f"({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} pairs)"
            )


if __name__ == "__main__":
    main()
