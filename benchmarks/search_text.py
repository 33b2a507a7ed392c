"""SEARCH TEXT over a table of vectors, against numpy's matrix product and top-k over the same vectors.

    python benchmarks/search_text.py                     # 100,000 vectors of 384 numbers
    python benchmarks/search_text.py --rows 1000000

Three searches in turn, each with the 1,000 nearest rows as its answer: DuckDB's scan of the warehouse (what
SEARCH TEXT runs), numpy over a matrix that lies in memory already, and numpy with the vectors fetched from
the warehouse first, as a script without SEARCH TEXT has to.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa


def table(rows: int, size: int, seed: int = 0) -> pa.Table:
    """Random unit vectors in clusters, so that some are near each other."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((64, size), dtype=np.float32)
    found = centres[rng.integers(0, 64, rows)] + rng.standard_normal((rows, size), dtype=np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), size)
    return pa.table({"id": np.arange(rows), "v": vectors})


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--top-k", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=9)
    asked = parser.parse_args()
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in ("duckdb", "numpy")]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {', '.join(libraries)}")
    print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    from thano_assets.assets.searches import nearest
    from thano_assets.session import Session

    with tempfile.TemporaryDirectory(prefix="thano-") as name, Session(Path(name) / "w") as session:
        given = table(asked.rows, asked.size)
        warehouse = session._runtime.warehouse
        with warehouse.write() as connection:
            connection.register("given", given)
            connection.execute("CREATE TABLE vectors AS SELECT * FROM given")
        matrix = given.column("v").combine_chunks().flatten().to_numpy().reshape(asked.rows, asked.size)
        query = matrix[7]
        sql = nearest("vectors", "v", query, "near", asked.top_k)

        def by_numpy(vectors: np.ndarray) -> np.ndarray:
            scores = vectors @ query
            best = np.argpartition(-scores, asked.top_k)[: asked.top_k]
            return best[np.argsort(-scores[best])]

        with warehouse.read() as connection:

            def scanned() -> pa.Table:
                return connection.sql(f"SELECT id, near FROM ({sql})").to_arrow_table()

            def fetched() -> np.ndarray:
                column = connection.sql("SELECT v FROM vectors").to_arrow_table().column(0).combine_chunks()
                return by_numpy(column.flatten().to_numpy().reshape(asked.rows, asked.size))

            found = scanned().column("id").to_pylist()
            same = len(set(found) & set(by_numpy(matrix).tolist())) / asked.top_k
            print(
                f"{asked.rows:,} vectors of {asked.size} numbers, the nearest {asked.top_k:,}; "
                f"{same:.1%} the same rows"
            )
            ways = {
                "SEARCH TEXT's scan in DuckDB": scanned,
                "numpy, matrix in memory": lambda: by_numpy(matrix),
                "numpy, vectors fetched first": fetched,
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(asked.runs + 1):
                for way, work in ways.items():
                    times[way].append(seconds(work))
        for way, taken in times.items():
            kept = sorted(taken[1:])  # the first run warms up
            ratios = [
                a / b for a, b in zip(times["SEARCH TEXT's scan in DuckDB"][1:], taken[1:], strict=True)
            ]
            print(
                f"  {way}: {statistics.median(kept) * 1e3:.1f} ms "
                f"({kept[0] * 1e3:.1f} to {kept[-1] * 1e3:.1f}); the scan takes "
                f"{statistics.median(ratios):.2f} times that ({min(ratios):.2f} to {max(ratios):.2f})"
            )
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
