"""The nearest vectors of a file: the same as by DuckDB's cosine, equal ones in the rows' order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from thano_assets.learning import nearest
from thano_assets.learning.nearest import MISSING, NOWHERE, Block, VectorFile

SIZE = 24


def blocks(vectors: np.ndarray, missing: np.ndarray | None = None, size: int = 50) -> Iterator[Block]:
    without = np.zeros(len(vectors), bool) if missing is None else missing
    for start in range(0, len(vectors), size):
        part = slice(start, start + size)
        rows = np.arange(len(vectors))[part]
        yield Block(rows, (rows * 7).astype(np.uint64), vectors[part], without[part])


def some(count: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, SIZE)) * rng.uniform(0.1, 9, (count, 1))).astype(np.float32)


def written(tmp_path: Path, vectors: np.ndarray, missing: np.ndarray | None = None) -> VectorFile:
    return VectorFile.write(tmp_path / "v.arrow", SIZE, blocks(vectors, missing), {"facts": {"a": 1}})


@pytest.fixture(params=["warm", "piece by piece"])
def _kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "warm":
        monkeypatch.setattr(nearest, "CACHED_BYTES", 0)
        monkeypatch.setattr(nearest, "_PIECE_BYTES", 2 * nearest.BLOCK * SIZE * 4)


@pytest.mark.usefixtures("_kept")
def test_rows_and_cosines_are_those_of_duckdb(tmp_path: Path) -> None:
    vectors, query = some(), some(1, seed=1)[0]
    found = written(tmp_path, vectors).nearest(query, 40)
    table = pa.table(
        {"row": np.arange(400), "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), SIZE)}
    )
    with duckdb.connect() as connection:
        connection.register("t", table)
        told = connection.execute(
            f"SELECT row, array_cosine_similarity(v, CAST($1 AS FLOAT[{SIZE}])) AS near FROM t "
            "ORDER BY near DESC LIMIT 40",
            [query.tolist()],
        ).fetchnumpy()
    assert found.rows.tolist() == told["row"].tolist()
    np.testing.assert_allclose(found.scores, told["near"], atol=2e-7)
    assert found.marks.tolist() == [7 * row for row in found.rows]


@pytest.mark.usefixtures("_kept")
def test_of_equally_near_rows_those_with_smaller_numbers_are_found(tmp_path: Path) -> None:
    vectors = some()
    vectors[3::4] = vectors[3]  # a hundred of them, at every place of a block
    file = written(tmp_path, vectors)
    for count in (1, 7, 60):
        found = file.nearest(vectors[3] * 5, count)
        assert found.rows.tolist() == list(range(3, 400, 4))[:count]
        assert set(found.scores.tolist()) == {1.0}


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    vectors, query = some(), some(1, seed=1)[0]
    order = np.random.default_rng(2).permutation(400)
    mixed = [Block(order, (order * 7).astype(np.uint64), vectors[order], np.zeros(400, bool))]
    file = VectorFile.write(tmp_path / "mixed.arrow", SIZE, mixed, {})
    assert (
        file.nearest(query, 30).rows.tolist() == written(tmp_path, vectors).nearest(query, 30).rows.tolist()
    )


def test_rows_without_a_vector_or_a_direction_are_never_found(tmp_path: Path) -> None:
    vectors, missing = some(6), np.zeros(6, bool)
    vectors[1], vectors[2, 0], missing[3] = 0, np.inf, True
    file = written(tmp_path, vectors, missing)
    assert sorted(file.nearest(vectors[0], 10).rows.tolist()) == [0, 4, 5]
    assert file.states[[1, 2, 3]].tolist() == [NOWHERE, NOWHERE, MISSING]
    assert file.missing == 1
    assert len(file.nearest(np.zeros(SIZE, np.float32), 10).rows) == 0


def test_only_allowed_rows_are_found(tmp_path: Path) -> None:
    vectors = some()
    file = written(tmp_path, vectors)
    everything = file.nearest(vectors[0], 400).rows.tolist()
    allowed = np.arange(0, 400, 3)
    found = file.nearest(vectors[0], 20, allowed).rows.tolist()
    assert found == [row for row in everything if row % 3 == 0][:20]
    assert file.nearest(vectors[0], 20, np.empty(0, np.int64)).rows.tolist() == []


def test_a_file_without_rows_finds_nothing(tmp_path: Path) -> None:
    file = VectorFile.write(tmp_path / "none.arrow", SIZE, [], {})
    assert file.nearest(some(1)[0], 5).rows.tolist() == []


def test_a_file_is_opened_with_what_was_told_and_is_the_same_until_it_is_replaced(tmp_path: Path) -> None:
    written(tmp_path, some())
    path = tmp_path / "v.arrow"
    first = VectorFile.opened(path)
    assert first is not None
    assert first.told == {"facts": {"a": 1}}
    assert VectorFile.opened(path) is first
    written(tmp_path, some(seed=3))
    second = VectorFile.opened(path)
    assert second is not None
    assert second is not first
    assert [one.name for one in tmp_path.iterdir()] == ["v.arrow"]


def test_a_spoilt_file_counts_as_none_and_is_removed(tmp_path: Path) -> None:
    written(tmp_path, some())
    path = tmp_path / "v.arrow"
    path.write_bytes(path.read_bytes()[:1000])
    assert VectorFile.opened(path) is None
    assert not path.exists()
    assert VectorFile.opened(path) is None


def test_what_stays_mapped_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "CACHED_BYTES", 400 * SIZE * 4)
    paths = [tmp_path / f"{number}.arrow" for number in range(2)]
    for path in paths:
        VectorFile.write(path, SIZE, blocks(some()), {})
    first = VectorFile.opened(paths[0])
    assert VectorFile.opened(paths[0]) is first
    VectorFile.opened(paths[1])
    assert VectorFile.opened(paths[0]) is not first


def test_an_interrupted_writing_leaves_no_file(tmp_path: Path) -> None:
    def stopped() -> Iterator[Block]:
        yield next(blocks(some()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VectorFile.write(tmp_path / "v.arrow", SIZE, stopped(), {})
    assert list(tmp_path.iterdir()) == []
