"""What statements, files and models may not do; docs/security.md lists these tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from thano_assets.errors import ThanoError
from thano_assets.resources.settings import Settings, read_settings
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_blob('{root}/warehouse.duckdb')",
        "SELECT * FROM read_blob('{root}/data/../warehouse.duckdb')",
        "SELECT * FROM read_text('{root}/thano.toml')",
        "SELECT * FROM '{root}/snapshots/x.parquet'",
        "SELECT * FROM query('SELECT * FROM read_blob(''{root}/warehouse.duckdb'')')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT * FROM glob('{root}/snapshots/*')",
        "CREATE TABLE t AS SELECT * FROM read_csv('/etc/passwd')",
        "SELECT (SELECT count(*) FROM read_blob('{root}/*.duckdb')) AS n",
        "EXPECT (SELECT count(*) FROM read_blob('{root}/warehouse.duckdb')) = 0 ON a",
        "SELECT * FROM a WHERE x IN (SELECT size FROM read_blob(getvariable('p')))",
    ],
)
def test_queries_read_no_files_but_data(session: Session, text: str) -> None:
    session.execute("CREATE TABLE a AS SELECT 1 AS x")
    with pytest.raises(ThanoError, match=r"may not read|queries read tables"):
        session.execute(text.replace("{root}", str(session.workspace.root)))


def test_queries_read_data(session: Session) -> None:
    path = session.workspace.data / "a.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    assert session.execute(f"SELECT * FROM read_csv('{path}')").arrow().to_pylist() == [{"a": 1}]
    assert session.execute(f"SELECT * FROM '{session.workspace.data}/*.csv'").row_count == 1


@pytest.mark.parametrize(
    "text",
    [
        "WITH x AS (COPY a TO '{data}/d.csv') SELECT * FROM x",
        "WITH x AS (SELECT 1), y AS MATERIALIZED (COPY a TO '{data}/d.csv') SELECT * FROM y",
        "SELECT * FROM a UNION (WITH x AS (COPY a TO '{data}/d.csv') SELECT * FROM x)",
        "WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x",
        "WITH x AS (UPDATE main.a SET x = 2 RETURNING *) SELECT * FROM x",
        "WITH x AS (TRUNCATE a) SELECT 1",
        "CREATE TABLE t AS WITH x AS (COPY a TO '{data}/d.csv') SELECT * FROM x",
        "EXPLAIN ANALYZE WITH x AS (COPY a TO '{data}/d.csv') SELECT * FROM x",
    ],
)
def test_queries_write_nothing(session: Session, text: str) -> None:
    session.execute("CREATE TABLE a AS SELECT 1 AS x")
    with pytest.raises(ThanoError):
        session.execute(text.replace("{data}", str(session.workspace.data)))
    assert not list(session.workspace.data.glob("*.csv"))
    assert session.execute("SELECT * FROM a").arrow().to_pylist() == [{"x": 1}]


def with_code(folder: Path, target: Path) -> Path:
    """A copy of a model's folder that brings a Python file along and asks for it to be run."""
    shutil.copytree(folder, target)
    (target / "evil.py").write_text("open('owned', 'w').close()\n", encoding="utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((target / name).read_text(encoding="utf-8"))
        said["auto_map"] = {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]}
        (target / name).write_text(json.dumps(said), encoding="utf-8")
    return target


def test_no_code_of_a_model_is_run_or_kept(
    session: Session, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person was asked whether to run code"))
    with_code(classifier, session.workspace.data / "odd")
    session.execute("UPLOAD MODEL u FROM 'odd'")
    with_code(classifier, session.workspace.models_cache / "own" / "base")
    build = (
        "BUILD MODEL m USING 'own/base' OPTIONS (epochs=1, baseline=False) AS "
        "SELECT 'a ' || i AS text, i % 2 AS label FROM range(20) r(i)"
    )
    session.execute(build)
    session.execute("PREDICT USING u AS SELECT 'a b' AS text")
    assert not (tmp_path / "owned").exists()
    made = list((session.workspace.mlflow / "artifacts").rglob("*.json"))
    assert len(made) > 4
    assert not [path for path in made if "auto_map" in path.read_text(encoding="utf-8")]


def test_passwords_are_not_shown(workspace: Workspace) -> None:
    secret = "http://alice:hunter2@127.0.0.1:9"
    workspace.settings_path.write_text(f'[mlflow]\ntracking_uri = "{secret}"\n', encoding="utf-8")
    settings = read_settings(workspace.settings_path)
    assert "hunter2" not in repr(settings)
    from thano_assets.resources.registry import Registry

    registry = Registry(workspace, settings)
    assert registry.model_url("m") == "http://127.0.0.1:9/#/models/m?workflowType=machine_learning"
    workspace.settings_path.write_text(f'[mlflow]\ntracking_uri = "{secret}"\nnope = 1\n', encoding="utf-8")
    with pytest.raises(ThanoError) as caught:
        read_settings(workspace.settings_path)
    assert "hunter2" not in caught.value.pretty()
    workspace.settings_path.write_text(f'[mlflow]\ntracking_uri = ["{secret}"]\n', encoding="utf-8")
    with pytest.raises(ThanoError) as caught:
        read_settings(workspace.settings_path)
    assert "hunter2" not in caught.value.pretty()
    assert Settings().mlflow.tracking_uri is None


def test_texts_that_are_too_long_are_refused_before_they_are_read(workspace: Workspace) -> None:
    workspace.settings_path.write_text("[statements]\nmax_length = 100\n", encoding="utf-8")
    with Session(Workspace(workspace.root)) as session:
        assert session.execute("SELECT 1 AS a").row_count == 1
        with pytest.raises(ThanoError, match="The text has 109 characters, and at most 100"):
            session.execute("SELECT 1 " + " " * 100)
