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
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.learning.tables.learners import LEARNERS

if TYPE_CHECKING:
    from mlflow.models import Model

_MODULE = "thano_table_model"
_REQUIRED = ("scikit-learn", "lightgbm", "skops", "numpy", "pandas", "pyarrow", "mlflow")
_SHOWN_FEATURES, _SHOWN_CLASSES = 40, 20


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
            input_example=_example(labels["features"]),
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


def _example(features: Sequence[Mapping[str, Any]]) -> Any:
    """A made-up row, as a data frame: no row of the training is shown to those who may see the registry."""
    import pandas as pd

    values = {"number": 0.0, "boolean": False, "datetime": "2000-01-01 00:00:00", "category": "text"}
    row = {
        one["name"]: [0.0] * one["size"] if one["kind"] == "vector" else values[one["kind"]]
        for one in features
    }
    return pd.DataFrame([row])


def _signature(labels: Mapping[str, Any]) -> Any:
    """What comes out. What goes in is left to the model's own code, which reads rows as PREDICT does.

    MLflow would turn a missing boolean into false or true, refuse whole numbers and 32-bit vectors of a data
    frame or of JSON, and dates in CSV.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    if labels["task"] == "regression":
        outputs: list[Any] = [ColSpec(DataType.double, "predicted")]
    else:
        from thano_assets.learning.tables.model import label_of

        types = {int: DataType.long, float: DataType.double, bool: DataType.boolean}
        type_ = types.get(type(label_of("0", labels["type"])), DataType.string)
        outputs = [ColSpec(type_, "predicted"), ColSpec(DataType.double, "probability")]
    return ModelSignature(outputs=Schema(outputs))


def description(labels: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """What a model predicts, what was found, and the columns that it reads, in Markdown.

    Args:
        labels: as :func:`save` takes them.
        tags: of the version; ``thano.learner`` and ``thano.trials`` say what the search found.
    """
    what = f"the numbers in `{labels['target']}`"
    if labels["task"] != "regression":
        classes = labels["classes"]
        listed = ", ".join(map(str, classes[:_SHOWN_CLASSES]))
        more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
        what = f"the class in `{labels['target']}` ({labels['type']}): {listed}{more}"
    learner, trials = tags.get("thano.learner", ""), tags.get("thano.trials", "")
    counted = "the only trial was" if trials == "1" else f"the best of {trials} trials was"
    features = labels["features"]
    rows = "\n".join(
        f"| {one['name'].replace('|', chr(92) + '|')} | {one['kind']} | {one['type']} |"
        for one in features[:_SHOWN_FEATURES]
    )
    rest = f"\n\n… and {len(features) - _SHOWN_FEATURES} more." if len(features) > _SHOWN_FEATURES else ""
    return (
        f"A model of tables that predicts {what}. Optuna searched over LightGBM and scikit-learn; "
        f"{counted}: {LEARNERS.get(learner, learner)}.\n\n"
        f"It reads:\n\n| column | kind | type |\n|---|---|---|\n{rows}{rest}"
    )


def card(name: str, description: str, figures: str, alias: str) -> str:
    """The model's README: what it predicts, from what, how well, and how it is asked.

    Args:
        name: of the model.
        description: the statement and :func:`description`, in Markdown.
        figures: a table of figures, in Markdown.
        alias: the version that answers by name.
    """
    return (
        f"# {name}\n\n{description}\n\n{figures}"
        "## Use\n\n```python\nimport mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}@{alias}")\n'
        "model.predict(frame)  # a pandas DataFrame with these columns\n```\n\n"
        f"`mlflow models serve -m models:/{name}@{alias} --env-manager local` answers rows as JSON "
        "(`dataframe_records`: dates are texts, vectors are lists) and as CSV.\n\n"
        "`model/model.skops` is read by skops, which builds objects of the types that "
        "`code/thano_table_model.py` lists, and no others.\n"
    )
