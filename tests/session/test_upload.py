"""UPLOAD MODEL: a classifier that was trained elsewhere becomes a version like any other."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from thano_assets.errors import DataFileError, NameExists, PathRefused, ThanoError
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

from .conftest import Recorder, traces

ROWS = "SELECT * FROM (VALUES (1, 'a b'), (2, 'c d e'), (3, NULL)) t(id, text)"


@pytest.fixture
def model(small_workspace: Workspace, make_classifier: Callable[..., Path]) -> Path:
    """The folder ``mine`` in the data folder: a classifier with the labels no, so and yes."""
    return Path(shutil.copytree(make_classifier(("no", "so", "yes")), small_workspace.data / "mine"))


def config(folder: Path, **changes: object) -> None:
    """Change the folder's config.json."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found |= changes
    (folder / "config.json").write_text(json.dumps(found), encoding="utf-8")


def as_state_dict(folder: Path, name: str = "weights.pth", prefix: str = "") -> None:
    """Have the folder's weights as torch.save writes them."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    torch.save({prefix + key: value for key, value in tensors.items()}, folder / name)
    (folder / "model.safetensors").unlink()


def test_an_uploaded_folder_predicts_what_the_folder_itself_does(session: Session, model: Path) -> None:
    from thano_assets.learning.predict import Predictor

    result = session.execute("UPLOAD MODEL mine FROM 'mine'")
    assert result.rows is not None
    row = result.rows.to_pylist()[0]
    assert (row["version"], row["status"], row["labels"]) == (1, "registered", ["no", "so", "yes"])
    found = session.execute(f"SELECT * FROM (PREDICT USING mine AS {ROWS}) ORDER BY id").df()
    theirs = Predictor.load(model).predict(["a b", "c d e"])
    assert found["predicted"][:2].tolist() == [["no", "so", "yes"][place] for place in theirs.argmax(axis=1)]
    assert found["probability"][:2].tolist() == pytest.approx(theirs.max(axis=1).tolist(), abs=1e-3)
    assert found["predicted"].isna().tolist() == [False, False, True]


def test_an_uploaded_model_is_listed_evaluated_and_trained_on(session: Session, model: Path) -> None:
    session.execute("UPLOAD MODEL mine OPTIONS (framework='pytorch') FROM 'mine'")
    session.execute(
        "CREATE TABLE t AS SELECT chr((97 + i % 20)::INTEGER) AS text, ['no', 'so', 'yes'][i % 3 + 1] AS label FROM range(30) r(i)"
    )
    scores = session.execute("EVALUATE USING mine AS SELECT * FROM t").df()
    assert "Accuracy" in scores["metric"].tolist()
    session.execute("FIT MODEL child USING mine OPTIONS (epochs=1, baseline=False) AS SELECT * FROM t")
    session.execute(
        "FIT MODEL child USING child OPTIONS (epochs=1, baseline=False, overwrite=True) AS SELECT * FROM t"
    )
    versions = session.execute("SHOW VERSIONS OF MODEL child").df()
    assert versions["version"].tolist() == [2, 1]
    made = session.execute("SHOW CREATE MODEL mine").df().set_index("item")["value"]
    assert made["statement"].startswith("UPLOAD MODEL mine")
    assert "trained elsewhere, from 'mine'" in made["base source"]


def test_a_second_upload_is_a_version_only_with_overwrite_and_promotion_goes_back(
    session: Session, model: Path
) -> None:
    session.execute("UPLOAD MODEL mine FROM 'mine'")
    with pytest.raises(NameExists, match="version 1"):
        session.execute("UPLOAD MODEL mine FROM 'mine'")
    config(model, id2label={"0": "bad", "1": "fair", "2": "good"}, label2id={"bad": 0, "fair": 1, "good": 2})
    session.execute("UPLOAD MODEL mine OPTIONS (overwrite=True) FROM 'mine'")
    assert set(session.execute(f"PREDICT USING mine AS {ROWS}").df()["predicted"].dropna()) <= {
        "bad",
        "fair",
        "good",
    }
    session.execute("PROMOTE MODEL mine VERSION 1")
    assert set(session.execute(f"PREDICT USING mine AS {ROWS}").df()["predicted"].dropna()) <= {
        "no",
        "so",
        "yes",
    }


def test_a_plan_says_which_file_changed_and_a_run_of_the_same_files_registers_nothing(
    session: Session, model: Path
) -> None:
    script = "UPLOAD MODEL mine OPTIONS (overwrite=True) FROM 'mine'; CREATE TABLE p AS PREDICT USING mine AS SELECT 'a' AS text"

    def run() -> list[bool]:
        steps = session.script(session.parse(script))
        for step in steps:
            session.execute_step(step)
        return [step.runs for step in steps]

    assert run() == [True, True]
    assert run() == [False, False]
    config(model, id2label={"0": "x", "1": "y", "2": "z"}, label2id={"x": 0, "y": 1, "z": 2})
    plan = session.plan(script).df()
    assert plan["asset"].tolist() == ["models/mine", "models/mine", "predictions/p"]
    assert plan["reason"].tolist()[0] == "config.json changed"
    assert plan["reason"].tolist()[2] == "mine is trained again"
    assert run() == [True, True]
    assert session.execute("SELECT predicted FROM p").df()["predicted"][0] in {"x", "y", "z"}
    (model / "README.md").write_text("words", encoding="utf-8")
    model.rename(model.with_name("moved"))
    script = script.replace("FROM 'mine'", "FROM 'moved'")
    assert session.plan(script).df()["reason"].tolist()[0] == (
        "the path changed from 'mine' to 'moved'; version 2 is the very same"
    )
    assert run() == [True, False]  # the same files elsewhere: no new version, so nothing downstream
    assert session.execute("SHOW VERSIONS OF MODEL mine").df()["version"].tolist() == [2, 1]


@pytest.mark.parametrize(("name", "prefix"), [("pytorch_model.bin", ""), ("weights.pth", "module.")])
def test_a_state_dict_becomes_safetensors(session: Session, model: Path, name: str, prefix: str) -> None:
    session.execute("UPLOAD MODEL plain FROM 'mine'")
    as_state_dict(model, name, prefix)
    session.execute(f"UPLOAD MODEL state FROM 'mine/{name}'")
    registry = session._runtime.registry
    plain, state = registry.champion("plain"), registry.champion("state")
    assert plain is not None
    assert state is not None
    assert [file.name for file in state.path.glob("model*")] == ["model.safetensors"]
    assert (state.path / "model.safetensors").read_bytes() == (plain.path / "model.safetensors").read_bytes()
    assert state.data_version == plain.data_version


def test_weights_in_several_files_become_one(session: Session, model: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    session.execute("UPLOAD MODEL whole FROM 'mine'")
    loaded = AutoModelForSequenceClassification.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size="2KB")
    assert len(list(model.glob("model-*.safetensors"))) > 1
    session.execute("UPLOAD MODEL parts FROM 'mine'")
    registry = session._runtime.registry
    whole, parts = registry.champion("whole"), registry.champion("parts")
    assert whole is not None
    assert parts is not None
    assert whole.data_version == parts.data_version
    next(iter(sorted(model.glob("model-*.safetensors")))).unlink()
    with pytest.raises(DataFileError, match="which its index names"):
        session.execute("UPLOAD MODEL torn FROM 'mine'")


class Hidden:
    """What a pickle may carry: something that is run when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("ran", "w")


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing", encoding="utf-8")


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hidden()))


def torn(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])


def two_labels(folder: Path) -> None:
    config(folder, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})


def encoder(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    found = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in found.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_folder, "is not a model's folder: there is no config.json"),
        (no_tokenizer, "'mine' has no tokenizer"),
        (no_weights, "has no weights"),
        (pickled, "holds more than tensors"),
        (torn, "cannot be loaded"),
        (two_labels, "have 3 outputs, its config.json names 2 labels"),
        (encoder, "lack classifier"),
        (
            lambda folder: config(folder, architectures=["ElectraModel"]),
            "holds ElectraModel, not a classifier",
        ),
        (lambda folder: config(folder, problem_type="regression"), "is a model for regression"),
        (lambda folder: config(folder, num_labels=4), "says num_labels 4 and names 3 labels"),
        (
            lambda folder: config(folder, model_type="brandnew", auto_map={"AutoConfig": "code.Config"}),
            "which Transformers does not know",
        ),
        (lambda folder: config(folder, vocab_size=20), "do not fit its config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else None,
)
def test_what_is_no_whole_classifier_is_refused_and_leaves_nothing(
    session: Session, model: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    spoil(model)
    before = traces(session)
    with pytest.raises(DataFileError, match=sentence) as caught:
        session.execute("UPLOAD MODEL mine\nFROM 'mine'")
    assert (caught.value.line, caught.value.column) == (2, 6)
    assert traces(session) == before
    assert not Path("ran").exists()


def test_a_folder_outside_of_the_workspace_is_refused(session: Session, model: Path, tmp_path: Path) -> None:
    outside = Path(shutil.copytree(model, tmp_path / "outside"))
    for path in (str(outside), "../../outside", "https://models.example/mine"):
        with pytest.raises(PathRefused):
            session.execute(f"UPLOAD MODEL mine FROM '{path}'")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(outside / "model.safetensors")
    with pytest.raises(PathRefused, match="outside the folders that UPLOAD MODEL may read"):
        session.execute("UPLOAD MODEL mine FROM 'mine'")
    with pytest.raises(DataFileError, match="no file or folder"):
        session.execute("UPLOAD MODEL mine FROM 'nowhere'")


def test_labels_without_names_are_told(session: Session, model: Path, told: Recorder) -> None:
    config(
        model, id2label={str(n): f"LABEL_{n}" for n in range(3)}, label2id={f"LABEL_{n}": n for n in range(3)}
    )
    result = session.execute("UPLOAD MODEL mine FROM 'mine'")
    assert any("have no names" in text for text in result.warnings)


def test_a_wrong_framework_is_refused_before_anything(session: Session, model: Path) -> None:
    with pytest.raises(ThanoError, match="framework"):
        session.execute("UPLOAD MODEL mine OPTIONS (framework='tensorflow') FROM 'mine'")
