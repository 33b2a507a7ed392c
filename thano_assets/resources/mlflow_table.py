"""A model of a table as an MLflow model that any MLflow loads, in a process that never heard of us.

Layout of the artifacts::

    MLmodel, requirements.txt, …    MLflow's own, flavour python_function
    model/                          config.json and model.skops, see :mod:`..learning.tables.model`
    code/thano_table_model.py       a copy of that module, which reads them
    labels.json  README.md          what is predicted and read; what this model is

Nothing here is a pickle. The code that comes along is for others: this package reads models with its own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import Model

_MODULE = "thano_table_model"
_REQUIRED = ("scikit-learn", "lightgbm", "skops", "numpy", "pandas", "pyarrow", "mlflow")
_SHOWN_FEATURES = 40


def save(source: Path, target: Path, *, model: Model, labels: dict[str, Any], card: str) -> None:
    """Write the MLflow model of the folder ``source`` to the new folder ``target``.

    Args:
        source: ``config.json`` and ``model.skops``.
        target: made here.
        model: MLflow's record of the model, with its run and id.
        labels: ``classes``, ``type``, ``task``, ``target`` and ``features``.
        card: a description in Markdown.
    """
    import mlflow.pyfunc

    from thano_assets.learning.tables import model as module

    with tempfile.TemporaryDirectory(prefix="thano-code-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no input example: the signature stands by itself
        code = Path(folder) / f"{_MODULE}.py"
        shutil.copyfile(str(module.__file__), code)
        shutil.copytree(source, Path(folder) / "model")
        mlflow.pyfunc.save_model(
            str(target),
            loader_module=_MODULE,
            data_path=str(Path(folder) / "model"),
            code_paths=[str(code)],
            mlflow_model=model,
            signature=_signature(labels),
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIRED],
        )
    # MLflow puts it under data/; every model of ours lies in model/.
    (target / "data" / "model").rename(target / "model")
    (target / "data").rmdir()
    model.flavors["python_function"]["data"] = "model"
    model.save(str(target / "MLmodel"))
    (target / "labels.json").write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
    (target / "README.md").write_text(card, encoding="utf-8")
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _signature(labels: Mapping[str, Any]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    types: dict[str, Any] = {
        "number": DataType.double,
        "boolean": DataType.boolean,
        "category": DataType.string,
        "datetime": DataType.datetime,
        "vector": Array(DataType.float),
    }
    inputs: list[Any] = [
        # Text that is read as a date stays text.
        ColSpec(types["category" if one["type"] == "VARCHAR" else one["kind"]], one["name"], required=False)
        for one in labels["features"]
    ]
    if labels["task"] == "regression":
        outputs: list[Any] = [ColSpec(DataType.double, "predicted")]
    else:
        outputs = [ColSpec(DataType.string, "predicted"), ColSpec(DataType.double, "probability")]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def card(
    name: str, labels: Mapping[str, Any], description: str, figures: str, alias: str, learner: str
) -> str:
    """The model's README: what it predicts, from what, how well, and how it is asked.

    Args:
        name: of the model.
        labels: as :func:`save` takes them.
        description: the statement and what it stands on, in Markdown.
        figures: a table of figures, in Markdown.
        alias: the version that answers by name.
        learner: the kind of model that was found.
    """
    features = labels["features"]
    listed = "\n".join(
        f"| {one['name']} | {one['kind']} | {one['type']} |" for one in features[:_SHOWN_FEATURES]
    )
    more = f"\n\n… and {len(features) - _SHOWN_FEATURES} more." if len(features) > _SHOWN_FEATURES else ""
    what = (
        f"numbers of the column `{labels['target']}`"
        if labels["task"] == "regression"
        else f"the class in `{labels['target']}`: {', '.join(map(str, labels['classes'][:20]))}"
    )
    return (
        f"# {name}\n\nA model of tables ({learner}) that predicts {what}.\n\n{description}\n\n"
        f"## What it reads\n\n| column | kind | type |\n|---|---|---|\n{listed}{more}\n\n{figures}"
        "## Use\n\n```python\nimport mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}@{alias}")\n'
        "model.predict(frame)  # a pandas DataFrame with these columns\n```\n\n"
        "`model/model.skops` is read by skops, which builds objects of the types that "
        "`code/thano_table_model.py` lists, and no others.\n"
    )
