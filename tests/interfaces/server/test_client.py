"""The public client, unmodified, against a real server over a real socket."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from .conftest import serving


class errors:  # noqa: N801 - as the client's own module is called
    """The client's errors, which are importable where it is installed only."""

    ThanoSQLValueError = ThanoSQLNotFoundError = ThanoSQLAlreadyExistsError = Exception


@pytest.fixture(autouse=True)
def _errors(public_client) -> None:
    for name in ("ThanoSQLValueError", "ThanoSQLNotFoundError", "ThanoSQLAlreadyExistsError"):
        setattr(errors, name, getattr(public_client._error, name))


def columns(table) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in table.columns]


def test_a_query_gives_rows(client) -> None:
    found = client.query.execute("SELECT 1 AS a, 'é' AS b UNION ALL SELECT 2, NULL ORDER BY a")
    assert found.records.data == [{"a": 1, "b": "é"}, {"a": 2, "b": None}]
    assert (found.total_records, found.statement_type, found.error_result) == (2, "QUERY", None)
    assert found.start_time <= found.end_time


def test_max_results_bounds_the_rows_and_not_their_number(client) -> None:
    found = client.query.execute("SELECT * FROM range(250)", max_results=3)
    assert [row["range"] for row in found.records.data] == [0, 1, 2]
    assert found.total_records == 250
    assert client.query.execute("SELECT 1", max_results=0).records is None
    with pytest.raises(errors.ThanoSQLValueError):
        client.query.execute("SELECT 1", max_results=101)


def test_a_result_is_kept_as_a_table(client) -> None:
    found = client.query.execute("SELECT 7 AS n", table_name="kept_rows")
    assert (found.destination_schema, found.destination_table_name) == ("public", "kept_rows")
    with pytest.raises(errors.ThanoSQLAlreadyExistsError):
        client.query.execute("SELECT 8 AS n", table_name="kept_rows")
    client.query.execute("SELECT 8 AS n", table_name="kept_rows", overwrite=True)
    assert client.query.execute("SELECT n FROM kept_rows").records.data == [{"n": 8}]
    with pytest.raises(errors.ThanoSQLNotFoundError):
        client.query.execute("SELECT 1", schema="nowhere", table_name="x")


def test_a_statement_that_fails_is_told_in_the_answer_and_a_wrong_request_by_its_code(client) -> None:
    assert "no column nope" in client.query.execute("SELECT nope FROM (SELECT 1 AS a)").error_result
    with pytest.raises(errors.ThanoSQLValueError, match="SELEC"):
        client.query.execute("SELEC 1")
    with pytest.raises(errors.ThanoSQLValueError, match="exactly one"):
        client.query.execute(query="SELECT 1", template_name="x")


def test_templates(client) -> None:
    made = client.query.template.create(name="by_n", query="SELECT {{ n }} AS n, '{{ word }}' AS w")
    assert made.parameters == ["n", "word"]
    found = client.query.execute(template_name="by_n", parameters={"n": 3, "word": "x"})
    assert found.records.data == [{"n": 3, "w": "x"}]
    assert found.query == "SELECT 3 AS n, 'x' AS w"
    assert client.query.execute(template_id=made.id, parameters={"n": 4, "word": ""}).total_records == 1
    with pytest.raises(errors.ThanoSQLValueError, match="parameter word"):
        client.query.execute(template_name="by_n", parameters={"n": 3})
    with pytest.raises(errors.ThanoSQLAlreadyExistsError):
        client.query.template.create(name="by_n", query="SELECT 1")
    changed = client.query.template.update("by_n", new_name="renamed", query="SELECT 1")
    assert (changed.id, changed.name, changed.parameters) == (made.id, "renamed", [])
    unnamed = client.query.template.create()
    assert unnamed.name.startswith("query_template_")
    names = [one.name for one in client.query.template.list(order_by="name_asc")]
    assert names == sorted(names)
    assert {"renamed", unnamed.name} <= set(names)
    client.query.template.delete("renamed")
    with pytest.raises(errors.ThanoSQLNotFoundError):
        client.query.template.get("renamed")
    dry = client.query.template.create(name="dry", query="SELECT {{ x }}", dry_run=True)
    assert dry.parameters == ["x"]
    with pytest.raises(errors.ThanoSQLNotFoundError):
        client.query.template.get("dry")


@pytest.mark.parametrize(
    "template",
    [
        "SELECT {{ ''.__class__ }}",
        "SELECT {{ 'a' * 1000000000 }}",
        "SELECT {{ 9 ** 9 ** 9 }}",
        "SELECT {{ range(1000) }}",
        "SELECT {% for a in x %}{% for b in x %}{{ b }}{% endfor %}{% endfor %}",
        "SELECT {% include 'x' %}",
        "SELECT {{",
    ],
)
def test_a_template_can_do_no_more_than_stand_for_values(client, template: str) -> None:
    with pytest.raises(errors.ThanoSQLValueError, match=r"template|function|loop|unsafe"):
        client.query.execute(template, parameters={"x": [1, 2]})


def test_a_value_is_bound_and_not_pasted(client) -> None:
    found = client.query.execute("SELECT $word AS w", parameters={"word": "it's; DROP TABLE x --"})
    assert found.records.data == [{"w": "it's; DROP TABLE x --"}]


def test_the_log_has_what_was_asked(client) -> None:
    client.query.execute("SELECT 123456 AS remembered")
    found = client.query.log.list(search="remembered", limit=1)
    assert found["total"] == 1
    assert found["query_logs"][0].query == "SELECT 123456 AS remembered"


def test_execute_values(client) -> None:
    client.query.execute("CREATE TABLE pairs AS SELECT 0 AS a, '' AS b WHERE false")
    found = client.query.execute_values(
        "SELECT count(*) AS n, max(b) AS b FROM (VALUES {{ values }}) AS v(a, b)", [(1, "it's"), (2, None)]
    )
    assert found.records.data == [{"n": 2, "b": "it's"}]


def test_a_file_becomes_a_table_and_grows(client, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text('id,name\n1,"a, b"\n2,é\n', encoding="utf-8")
    table = client.table.upload("people", file=file)
    assert columns(table) == [("id", "BIGINT"), ("name", "VARCHAR")]
    with pytest.raises(errors.ThanoSQLAlreadyExistsError):
        client.table.upload("people", file=file)
    table = client.table.upload("people", file=file, if_exists="append")
    table.insert([{"id": 3, "name": "c"}, {"id": 4}])
    rows = table.get_records()
    assert rows.total == 6
    assert rows.data[0] == {"id": 1, "name": "a, b"}
    assert rows.data[-1] == {"id": 4, "name": None}
    assert table.get_records(offset=5, limit=10).data == [{"id": 4, "name": None}]
    with pytest.raises(errors.ThanoSQLValueError, match="BIGINT"):
        table.insert([{"id": "x"}])
    with pytest.raises(errors.ThanoSQLNotFoundError, match="no column nope"):
        table.insert([{"nope": 1}])
    assert table.get_records().total == 6
    table = client.table.upload("people", file=file, if_exists="replace")
    assert table.get_records().total == 2


def test_a_workbook_and_a_data_frame_become_tables(client, tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1, 2], "word": ["x", None]})
    frame.to_excel(tmp_path / "sheet.xlsx", index=False, engine="xlsxwriter")
    assert client.table.upload("sheet", file=tmp_path / "sheet.xlsx").get_records().total == 2
    table = client.table.upload("frame", df=frame)
    assert table.get_records().data == [{"n": 1, "word": "x"}, {"n": 2, "word": None}]
    typed = {"columns": [{"name": "n", "type": "VARCHAR"}, {"name": "word", "type": "VARCHAR"}]}
    assert columns(client.table.upload("typed", df=frame, table=typed))[0] == ("n", "VARCHAR")
    (tmp_path / "old.ods").write_bytes(b"")
    with pytest.raises(errors.ThanoSQLValueError, match=r"\.xlsx"):
        client.table.upload("old", file=tmp_path / "old.ods")


def test_a_table_without_rows_is_made_listed_and_dropped(client, server) -> None:
    asked = {"columns": [{"name": "a", "type": "integer"}, {"name": "b", "type": "varchar(20)"}]}
    table = client.table.create("empty", table=asked)
    assert columns(table) == [("a", "INTEGER"), ("b", "VARCHAR")]
    assert table.get_records().total == 0
    table.insert([{"a": 1, "b": "x"}])
    assert client.table.get("empty").get_records().data == [{"a": 1, "b": "x"}]
    assert "empty" in [one.name for one in client.table.list()]
    with pytest.raises(errors.ThanoSQLValueError, match="no keys"):
        client.table.create("keyed", table=asked | {"constraints": {"primary_key": {"columns": ["a"]}}})
    assert client.table.delete("empty")["table_name"] == "empty"
    assert not (server.workspace.data / "uploads" / "empty").exists()
    with pytest.raises(errors.ThanoSQLNotFoundError):
        client.table.get("empty")


def test_a_table_is_downloaded_as_csv(client, tmp_path: Path) -> None:
    client.query.execute("SELECT range AS n, 'a,\"' AS w FROM range(5000)", table_name="long")
    client.table.get("long").get_records_as_csv()
    [file] = tmp_path.glob("long_*.csv")
    rows = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    assert len(rows) == 5000
    assert rows[4999] == {"n": "4999", "w": 'a,"'}


def test_a_write_changes_what_plans_see(client, server) -> None:
    client.table.upload("source", df=pd.DataFrame({"n": [1, 2]}))
    client.query.execute("CREATE TABLE sums AS SELECT sum(n) AS total FROM source")
    before = server.run("SHOW CREATE TABLE source")
    client.table.get("source").insert([{"n": 10}])
    after = server.run("SHOW CREATE TABLE source")
    assert {row["item"]: row["value"] for row in before}["data version"] != {
        row["item"]: row["value"] for row in after
    }["data version"]
    planned = server.run("PLAN CREATE OR REPLACE TABLE sums AS SELECT sum(n) AS total FROM source")
    assert "rebuild" in {row["action"] for row in planned if row["asset"] == "tables/sums"}
    client.query.execute("CREATE OR REPLACE TABLE sums AS SELECT sum(n) AS total FROM source")
    assert server.run("SELECT total FROM sums") == [{"total": 13}]
    parts = server.run("SHOW CREATE TABLE source")
    assert "uploads/source/" in parts[0]["value"]


def test_many_inserts_stay_one_statement(client, server) -> None:
    table = client.table.upload("many", df=pd.DataFrame({"n": [0]}))
    for number in range(1, 24):
        table.insert([{"n": number}])
    assert [row["n"] for row in server.run("SELECT n FROM many ORDER BY n")] == list(range(24))
    assert table.get_records().total == 24
    assert len(list((server.workspace.data / "uploads" / "many").iterdir())) < 10


def test_files_of_the_data_folder(client, server, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a\n1\n", encoding="utf-8")
    client.file.create("inbox")
    client.file.create("inbox", file=tmp_path / "notes.csv")
    info = client.file.get("inbox").content_info
    assert (info.type, [one["path"] for one in info.content]) == ("directory", ["inbox/notes.csv"])
    assert server.run("COPY notes FROM 'inbox/notes.csv'")[0]["rows"] == 1
    (tmp_path / "notes.csv").unlink()
    client.file.get("inbox/notes.csv", option="download")
    assert (tmp_path / "notes.csv").read_text() == "a\n1\n"
    with pytest.raises(errors.ThanoSQLValueError):
        client.file.create("inbox/notes.csv/deeper")
    client.file.delete("inbox/notes.csv")
    with pytest.raises(errors.ThanoSQLNotFoundError):
        client.file.get("inbox/notes.csv")


def test_schemas(client) -> None:
    assert [one["name"] for one in client.schema.list()["schemas"]] == ["public", "qm"]
    with pytest.raises(errors.ThanoSQLAlreadyExistsError):
        client.schema.create("public")


def test_a_model_is_trained_while_the_client_waits(client, server) -> None:
    rows = [{"text": word, "label": label} for word, label in (("good", "p"), ("bad", "n")) for _ in range(8)]
    client.table.upload("rows_to_learn", df=pd.DataFrame(rows))
    found = client.query.execute(
        "BUILD MODEL waited USING \"tiny\" OPTIONS (text_col='text', label_col='label', epochs=1) "
        "AS SELECT * FROM rows_to_learn; SELECT 5 AS n",
        table_name="after_training",
    )
    assert found.error_result is None
    assert found.records.data == [{"n": 5}]
    assert client.table.get("after_training").get_records().data == [{"n": 5}]
    answer = server.ask("POST", "/models/waited/predict", json={"texts": ["good"]}).json()
    assert answer["version"] == 1
    predicted = client.query.execute(
        "PREDICT USING waited OPTIONS (text_col='text') AS SELECT * FROM rows_to_learn"
    )
    assert predicted.total_records == 16


def test_many_clients_at_once_are_all_answered(client, server) -> None:
    client.table.upload("shared", df=pd.DataFrame({"n": [0]}))

    def ask(number: int) -> int:
        if number % 8 == 0:
            found = server.ask("POST", "/table/shared/records", json=[{"n": number}])
            assert found.status_code == 200, found.text
        return server.run("SELECT count(*) >= 1 AS there, 7 AS n FROM shared")[0]["n"]

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(80))) == {7}
    assert server.run("SELECT count(*) AS n, count(DISTINCT n) AS different FROM shared") == [
        {"n": 11, "different": 10}
    ]


def test_an_environment_keeps_its_uploads_apart(server) -> None:
    server.ask("POST", "/table/apart/upload/json", json={"data": [{"n": 1}]})
    with serving(server.workspace, "--env", "trial") as trial:
        more = {"json": {"data": [{"n": 2}]}}
        assert trial.ask("POST", "/table/apart/upload/json?if_exists=replace", **more).status_code == 200
        assert trial.run("SELECT n FROM apart") == [{"n": 2}]
        assert trial.ask("DELETE", "/table/apart").status_code == 200
    assert server.run("SELECT n FROM apart") == [{"n": 1}]
    [kept] = (server.workspace.data / "uploads" / "apart").iterdir()
    assert server.run(f"COPY apart OPTIONS (overwrite=True) FROM 'uploads/apart/{kept.name}'")[0]["rows"] == 1


def test_a_table_keeps_its_name_and_a_file_that_another_statement_reads_stays(client, server) -> None:
    client.table.upload("Spelt", df=pd.DataFrame({"n": [1]}))
    client.table.upload("SPELT", df=pd.DataFrame({"n": [2]}), if_exists="append")
    folder = server.workspace.data / "uploads"
    assert [one.name for one in folder.iterdir() if one.name.casefold() == "spelt"] == ["Spelt"]
    first = sorted((folder / "Spelt").iterdir())[0]
    server.run(f"COPY other FROM 'uploads/Spelt/{first.name}'")
    client.table.delete("spelt")
    assert list((folder / "Spelt").iterdir()) == [first]
    client.table.delete("other")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query/", '{"query_string": "SELECT \'\\ud800\' AS a"}'),
        ("/query/", '{"query_string": "SELECT {{ a }}", "parameters": {"a": "\\ud800"}}'),
        ("/query/template", '{"name": "half", "query": "\\ud800"}'),
        ("/table/half/upload/json", '{"data": [{"a": "\\ud800"}]}'),
        ("/table/half/upload/json", '{"data": [{"\\ud800": 1}]}'),
        ("/models/letters/predict", '{"texts": ["whole", "\\ud800"]}'),
        ("/runs", '{"statement": "SELECT \'\\ud800\'"}'),
    ],
)
def test_half_a_character_is_refused_with_a_sentence(server, path: str, body: str) -> None:
    if path.startswith("/models"):
        server.run("UPLOAD MODEL letters OPTIONS (overwrite=True) FROM 'letters'")
    found = server.ask("POST", path, data=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400, found.text
    assert found.json()["error"]["message"]
    assert server.ask("GET", "/table/half").status_code == 404
