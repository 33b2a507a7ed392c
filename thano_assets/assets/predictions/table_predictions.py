"""Answers of models of tables: every row goes through the model each time.

Nothing is kept: a tree or a linear model answers a row in less time than its key is made and looked up.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.queries import Stage
from thano_assets.errors import WorkspaceError
from thano_assets.learning.model_cache import ModelCache

if TYPE_CHECKING:
    from thano_assets.assets.models.features import Reading
    from thano_assets.learning.tables.model import TableModel
    from thano_assets.resources.model_version import ModelVersion

_loaded: ModelCache[TableModel] = ModelCache()

#: Rows that are read and answered at a time.
WINDOW = 16_384


def model_of(version: ModelVersion) -> TableModel:
    """The loaded model of a version, kept warm in this process.

    Raises:
        WorkspaceError: its file holds what no model of ours has, so it is not loaded.
    """
    from thano_assets.learning.tables.model import TableModel

    def load(folder: Path) -> TableModel:
        try:
            return TableModel.load(folder)
        except ValueError as error:
            raise WorkspaceError(
                f"Model {version.name} version {version.version} cannot be loaded: {error}.",
                hint="BUILD MODEL … OPTIONS (overwrite=True) trains it again.",
            ) from error

    return _loaded.get(TableModel, version.path, load)


def answered(
    stage: Stage, reading: Reading, version: ModelVersion, runtime: Runtime, outcome: Outcome
) -> str:
    """Have the staged rows answered.

    Returns:
        A query over the stage with the columns ``number`` (of the row, from 1) and ``p`` (DOUBLE[]:
        probabilities in the order of the version's classes, or the predicted number), in the rows' order.
    """
    import numpy as np
    import pyarrow as pa

    answers = f"answers_{uuid.uuid4().hex[:8]}"  # several versions may answer the same rows
    outcome.facts |= {"rows through the model": stage.count, "device": "cpu"}
    with stage.connection.cursor() as reader_cursor, stage.connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {answers} (number BIGINT, p DOUBLE[])")
        if not stage.count:
            return f"SELECT number, p FROM {answers}"
        model = model_of(version)
        reader = reader_cursor.sql(f"SELECT {reading.select} FROM rows").to_arrow_reader(WINDOW)
        first = 1
        with runtime.progress.task(f"Asking {version.name}", stage.count, "rows") as task:
            for batch in reader:
                found = model.predict(pa.Table.from_batches([batch]))
                places = np.arange(0, found.size + 1, found.shape[1], dtype=np.int32)
                window = pa.table(
                    {
                        "number": np.arange(first, first + len(found)),
                        "p": pa.ListArray.from_arrays(pa.array(places), pa.array(found.ravel())),
                    }
                )
                cursor.register("window_answers", window)
                cursor.execute(f"INSERT INTO {answers} SELECT number, p FROM window_answers")
                cursor.unregister("window_answers")
                first += len(found)
                task.advance(len(found))
    return f"SELECT number, p FROM {answers}"
