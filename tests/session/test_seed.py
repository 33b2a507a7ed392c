"""The first tutorial, character for character, as a person runs it: the statements, and the notebook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

TUTORIALS = Path(__file__).parents[2] / "tutorials"

# The cells of the tutorial, without their first line (%%thanosql).
CELLS = [
    'COPY movie_review_train \nOPTIONS(overwrite = True)\nFROM "tutorial_data/movie_review_data/movie_review_train.csv"',
    'COPY movie_review_test \nOPTIONS(overwrite = True)\nFROM "tutorial_data/movie_review_data/movie_review_test.csv"',
    "SELECT *\nFROM movie_review_train\nLIMIT 5",
    (
        "PREDICT USING tutorial_text_classification\nOPTIONS (\n    text_col='review',\n    label_col='sentiment'\n"
        "    )\nAS\nSELECT *\nFROM movie_review_test"
    ),
    (
        "BUILD MODEL my_movie_review_classifier\nUSING ElectraEn\nOPTIONS (\n  text_col='review',\n"
        "  label_col='sentiment',\n  epochs=1,\n  batch_size=4,\n  overwrite=True\n  )\nAS\nSELECT *\nFROM movie_review_train"
    ),
    (
        "PREDICT USING my_movie_review_classifier\nOPTIONS (\n    text_col='review'\n    )\nAS\nSELECT *\nFROM movie_review_test"
    ),
]


def test_the_tutorial_files_are_the_cells_as_they_stand() -> None:
    script = (TUTORIALS / "text_classification.sql").read_text(encoding="utf-8")
    places = [script.index(cell + ";") for cell in CELLS]
    assert places == sorted(places)
    notebook = nbformat.read(TUTORIALS / "text_classification.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert [source for source in code if source.startswith("%%thanosql")] == [
        "%%thanosql\n" + cell for cell in CELLS
    ]


def test_the_statements_run_as_they_stand(small_workspace: Workspace) -> None:
    """With a base that trains in seconds; the pre-built model and the reviews are the real ones."""
    with Session(small_workspace) as session:
        train, test, look, prebuilt, build, predict = (session.execute(cell) for cell in CELLS)
        assert train.arrow().to_pylist()[0]["rows"] == 2000
        assert test.arrow().to_pylist()[0]["rows"] == 1000
        assert look.df().columns.tolist() == ["review", "sentiment"]
        assert look.row_count == 5

        answers = prebuilt.df()
        assert answers.columns.tolist()[:3] == ["review", "sentiment", "predicted"]
        assert len(answers) == 1000
        right = (answers["predicted"] == answers["sentiment"]).sum()
        assert right >= 880, "the pre-built model answers well on rows that it has never seen"
        assert f"{right} of them right" in prebuilt.summary

        built = build.arrow().to_pylist()[0]
        assert (built["model"], built["version"], built["rows_train"], built["rows_eval"]) == (
            "my_movie_review_classifier",
            1,
            1800,
            200,
        )
        assert built["baseline_accuracy"] > 0.8
        assert predict.arrow().column_names[:3] == ["review", "sentiment", "predicted"]
        assert predict.arrow().column("review").to_pylist() == answers["review"].tolist()
        assert session.execute(CELLS[4]).arrow().to_pylist()[0]["version"] == 2


@pytest.mark.parametrize("name", ["text_classification.ipynb"])
def test_the_notebook_runs_in_a_real_kernel(
    small_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("THANO_WORKSPACE", str(small_workspace.root))
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    for cell in notebook.cells:  # the first rows of the test set: the kernel is under test, not the model
        if cell.cell_type == "code" and cell.source.startswith("%%thanosql\nPREDICT"):
            cell.source += "\nLIMIT 20"
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    shown = [
        output.data["text/html"]
        for cell in outputs
        for output in cell
        if "text/html" in output.get("data", {})
    ]
    assert sum("<th>predicted</th>" in html for html in shown) == 2
    assert any("my_movie_review_classifier" in html for html in shown)
    assert not any(output.output_type == "error" for cell in outputs for output in cell)
    noise = [output.text for cell in outputs for output in cell if output.get("name") == "stderr"]
    assert noise == []
