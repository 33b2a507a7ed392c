"""Leaks: rows that a model is measured on, and was trained on before.

The texts of a training are kept as a snapshot, and which of them were held out follows from labels, share
and seed. So a version, and the parents that it went on from, can tell whether they have seen a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.assets.models.features import Reading
from thano_assets.assets.models.labels import classes_of
from thano_assets.assets.runtime import Runtime
from thano_assets.resources.warehouse import literal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from thano_assets.resources.registry import ModelVersion

_PARENT = " VERSION "


@dataclass(frozen=True)
class Trained:
    """The rows of one training.

    Attributes:
        path: The snapshot.
        held_out: Numbers of the rows (from 0) that only judged the model; ``None`` where that is not known.
    """

    path: Path
    held_out: pa.Array | None

    @classmethod
    def of(
        cls,
        path: Path,
        classes: Sequence[str],
        fraction: float,
        seed: int,
        label: str = "label",
        *,
        texts: bool = False,
        types: tuple[str, str] = ("", ""),
    ) -> Trained:
        """The rows of ``path`` without those that a training with these settings held out.

        Without ``classes`` numbers were learnt, and the rows held out are any. ``texts`` says that all rows
        of a text were on one side; ``types`` are the DuckDB types of the rows' labels and of the classes.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        from thano_assets.learning.holdout import hold_out

        rows = pq.read_table(path, columns=[label, "text"] if texts else [label])
        labels = rows.column(label)
        if not classes:
            _, held = hold_out(np.zeros(len(labels), dtype=np.int64), fraction, seed)
            return cls(path, pa.array(held, pa.int64()))
        own = pc.unique(labels).to_pylist()
        equal = classes_of(own, types[0], classes, types[1])
        names = pa.array([equal[name] for name in own], pa.string())
        labels = names.take(pc.index_in(labels, value_set=pa.array(own, pa.string())).combine_chunks())
        places = pc.index_in(labels, value_set=pa.array(list(classes), pa.string()))
        if places.null_count:
            return cls(path, None)
        together = rows.column("text").to_pylist() if texts else None
        _, held = hold_out(places.to_numpy().astype(np.int64), fraction, seed, together)
        return cls(path, pa.array(held, pa.int64()))


@dataclass(frozen=True)
class Memory:
    """What a version was trained on: its own rows and those of the versions it went on from.

    Attributes:
        trainings: Rows that are kept here.
        unknown: Versions of the chain whose rows are not kept here, as ``name VERSION n``.
    """

    trainings: list[Trained] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, version: ModelVersion, runtime: Runtime) -> Memory:
        """That of a registered version."""
        memory = cls()
        found: ModelVersion | None = version
        name = f"{version.name}{_PARENT}{version.version}"
        visited: set[str] = set()
        while name not in visited:
            visited.add(name)
            training = _training(found, runtime) if found is not None else None
            if training is None:
                memory.unknown.append(name)
            else:
                memory.trainings.append(training)
            parent = found.tags.get("thano.parent") if found is not None else None
            if not parent:
                break
            name = parent
            found = parent_version(parent, runtime)
        return memory


@dataclass(frozen=True)
class Leak:
    """How many rows a version has seen before.

    Attributes:
        rows: Rows with a text.
        seen: Those whose text is among the training rows.
        unknown: Versions whose training rows could not be looked up.
        rough: Whether held-out rows are counted too, because they could not be told apart.
    """

    rows: int
    seen: int
    unknown: list[str]
    rough: bool

    def sentence(self, name: str) -> str | None:
        """What a person should know before trusting the scores of ``name``; ``None`` if nothing."""
        told = []
        if self.seen:
            were = "row was" if self.seen == 1 else "rows were"
            told.append(
                f"{self.seen:,} of the {self.rows:,} {were} among those that {name} was trained on: "
                "its scores look better than they are."
            )
            if self.rough:
                told.append("Rows that its training held out are counted too.")
        if self.unknown:
            told.append(self.unchecked())
        return " ".join(told) or None

    def unchecked(self) -> str:
        """Says whose training rows could not be looked up; empty where all were."""
        if not self.unknown:
            return ""
        names = " and ".join(self.unknown)
        return (
            f"Whether {names} was trained on some of the rows cannot be checked: its rows are not kept here."
        )

    def fact(self) -> int | str:
        """For the asset's page: the number of rows seen before, and whether it is all that is to know."""
        return f"{self.seen:,}, not checked: {', '.join(self.unknown)}" if self.unknown else self.seen


def rows_seen(connection: duckdb.DuckDBPyConnection, relation: str, reading: Reading, memory: Memory) -> Leak:
    """How many rows of ``relation`` have a text, or the columns of a row, that ``memory`` holds.

    Args:
        connection: Where the relation is known.
        relation: A table or subquery, as SQL.
        reading: How its rows are read.
        memory: What a version was trained on.
    """
    cursor = connection.cursor()
    try:
        parts = []
        for number, trained in enumerate(memory.trainings):
            source = f"read_parquet({literal(str(trained.path))}, file_row_number=true) r"
            if trained.held_out is not None and len(trained.held_out):
                import pyarrow as pa

                name = f"held_out_{number}"
                cursor.register(name, pa.table({"file_row_number": trained.held_out}))
                source += f" ANTI JOIN {name} USING (file_row_number)"
            parts.append(f"SELECT {reading.kept.key} FROM {source}")
        among = f"{reading.key} IN ({' UNION ALL '.join(parts)})" if parts else "false"
        rows, seen = cursor.execute(
            f"SELECT count(*), count(*) FILTER (WHERE {among}) FROM {relation} WHERE {reading.present}"
        ).fetchall()[0]
    finally:
        cursor.close()
    rough = any(trained.held_out is None for trained in memory.trainings)
    return Leak(int(rows), int(seen), list(memory.unknown), rough)


def parent_version(reference: str, runtime: Runtime) -> ModelVersion | None:
    """The version that a ``thano.parent`` tag (``name VERSION n``) means; ``None`` where it was deleted."""
    name, _, number = reference.rpartition(_PARENT)
    versions = runtime.registry.versions(name) if number.isdigit() else []
    return next((version for version in versions if version.version == int(number)), None)


def _training(version: ModelVersion, runtime: Runtime) -> Trained | None:
    """The rows that a version was trained on itself, ``None`` where they are not kept here."""
    fingerprint = version.tags.get("thano.training_set")
    path = runtime.workspace.kept(f"{fingerprint}.parquet")
    if not fingerprint or not path.is_file():
        return None
    try:
        fraction, seed = float(version.params["eval_fraction"]), int(version.params["seed"])
    except (KeyError, ValueError):
        return Trained(path, None)
    return Trained.of(
        path,
        version.classes,
        fraction,
        seed,
        version.target if version.task else "label",
        texts=version.params.get("split") == "texts",
        types=(version.tags.get("thano.label_type", ""), version.label_type),
    )
