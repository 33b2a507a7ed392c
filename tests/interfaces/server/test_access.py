"""Who is let in, and what a request may ask for: each rule by itself, over a real socket."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from thano_assets.errors import NameExists, ThanoError, UnknownToken
from thano_assets.interfaces.serve_commands import check_address, is_loopback
from thano_assets.resources.access import Tokens
from thano_assets.resources.workspace import Workspace

from .conftest import Running, serving

LIMITS = """
[server]
max_body_mb = 1
max_rows = 50
hosts = ["thano.example"]
[files]
allowed = ["{elsewhere}"]
"""


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def guarded(
    make_server_workspace: Callable[[], Workspace],
    tokens: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A server with tokens, tight limits, and a folder that COPY may read, but not over HTTP."""
    workspace = make_server_workspace()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret.csv").write_text("a\n1\n", encoding="utf-8")
    (workspace.data / "open.csv").write_text("a\n1\n", encoding="utf-8")
    workspace.settings_path.write_text(LIMITS.format(elsewhere=elsewhere), encoding="utf-8")
    kept = Tokens(workspace)
    for name, rights in (("all", "read write build"), ("reader", "read"), ("writer", "read write")):
        tokens[name] = kept.create(name, rights.split())
    tokens["elsewhere"] = str(elsewhere)
    with serving(workspace) as running:
        yield running


def bearer(tokens: dict[str, str], name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens[name]}"}


def ask(guarded: Running, statement: str, headers: dict[str, str], **more) -> requests.Response:
    return guarded.ask("POST", "/query/", json={"query_string": statement}, headers=headers, **more)


@pytest.mark.parametrize(
    "header",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic x"}],
)
def test_nobody_is_let_in_without_a_token(guarded: Running, header: dict[str, str]) -> None:
    for method, path in (("POST", "/query/"), ("GET", "/table/"), ("GET", "/models"), ("GET", "/runs")):
        found = guarded.ask(method, path, headers=header, json={"query_string": "SELECT 1"})
        assert found.status_code == 401
        assert found.json()["error"]["code"] == 401
    assert requests.get(f"{guarded.url}/metrics", headers=header, timeout=10).status_code == 401


def test_machines_that_watch_and_the_page_of_paths_need_no_token(guarded: Running) -> None:
    page = requests.get(f"{guarded.url}/docs", timeout=10).text
    places = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert places
    for place in places:  # nothing of it comes from another server
        assert requests.get(guarded.url + place, timeout=10).ok, place
    assert "/api/v1/query/" in requests.get(f"{guarded.url}/openapi.json", timeout=10).json()["paths"]
    assert requests.get(f"{guarded.url}/healthz", timeout=10).json() == {"status": "ok"}
    assert requests.get(f"{guarded.url}/readyz", timeout=10).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("statement", "right"),
    [
        ("SELECT 1", "read"),
        ("LIST TABLE", "read"),
        ("PLAN SELECT 1", "read"),
        ("COPY t FROM 'open.csv' ", "write"),
        ("CREATE TABLE u AS SELECT 1 AS a", "write"),
        ("DROP TABLE IF EXISTS nothing", "write"),
        ("UPLOAD MODEL up FROM 'letters'", "build"),
        ("DELETE MODEL up", "build"),
    ],
)
def test_a_token_is_good_for_its_rights_only(
    guarded: Running, tokens: dict[str, str], statement: str, right: str
) -> None:
    for name, rights in (("reader", "read"), ("writer", "read write"), ("all", "read write build")):
        found = ask(guarded, statement, bearer(tokens, name))
        assert found.status_code == (200 if right in rights.split() else 403), found.text
    if right != "read":
        assert f"needs the right '{right}'" in ask(guarded, statement, bearer(tokens, "reader")).text
        run = guarded.ask("POST", "/runs", json={"statement": statement}, headers=bearer(tokens, "reader"))
        assert run.status_code == 403


def test_a_reader_changes_no_table_template_or_file(guarded: Running, tokens: dict[str, str]) -> None:
    for method, path, body in (
        ("POST", "/table/x", {"table": {"columns": [{"name": "a", "type": "int"}]}}),
        ("POST", "/table/x/upload/json", {"data": [{"a": 1}]}),
        ("POST", "/table/x/records", [{"a": 1}]),
        ("DELETE", "/table/x", None),
        ("POST", "/query/template", {"name": "t", "query": "SELECT 1"}),
        ("DELETE", "/query/template/t", None),
    ):
        assert guarded.ask(method, path, json=body, headers=bearer(tokens, "reader")).status_code == 403, path
    files = f"{guarded.url}/fm/api/v1/contents/x"
    for method in ("POST", "DELETE"):
        assert (
            requests.request(method, files, headers=bearer(tokens, "reader"), timeout=10).status_code == 403
        )


def test_another_web_page_is_refused(guarded: Running, tokens: dict[str, str]) -> None:
    headers = bearer(tokens, "all")
    own = guarded.url
    assert ask(guarded, "SELECT 1", headers | {"Origin": own}).status_code == 200
    for origin in ("http://evil.example", "null", own.replace("127.0.0.1", "localhost")):
        assert ask(guarded, "SELECT 1", headers | {"Origin": origin}).status_code == 403
    assert ask(guarded, "SELECT 1", headers | {"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_foreign_name_is_refused(guarded: Running, tokens: dict[str, str]) -> None:
    headers = bearer(tokens, "all")
    for host, status in (("evil.example", 403), ("thano.example:80", 200), ("localhost:1", 200)):
        assert ask(guarded, "SELECT 1", headers | {"Host": host}).status_code == status
    assert requests.get(f"{guarded.url}/healthz", headers={"Host": "evil"}, timeout=10).status_code == 403


def test_a_body_has_at_most_so_many_bytes(guarded: Running, tokens: dict[str, str]) -> None:
    body = json.dumps({"query_string": "SELECT 1 --" + "x" * 1_000_000}).encode()
    headers = bearer(tokens, "all") | {"Content-Type": "application/json"}

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    for data in (body, pieces()):  # with its length said, and without
        found = guarded.ask("POST", "/query/", data=data, headers=headers)
        assert found.status_code == 413
        assert "1,000,000 bytes" in found.json()["error"]["message"]


def test_a_statement_takes_at_most_so_long(make_server_workspace: Callable[[], Workspace]) -> None:
    workspace = make_server_workspace()
    workspace.settings_path.write_text("[server]\nmax_seconds = 2\n", encoding="utf-8")
    with serving(workspace) as server:
        found = ask(server, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b", {})
        assert found.status_code == 504
        assert "longer than 2 seconds" in found.json()["error"]["message"]
        assert server.run("SELECT 1 AS n") == [{"n": 1}]


def test_an_answer_has_at_most_so_many_rows(guarded: Running, tokens: dict[str, str]) -> None:
    found = ask(guarded, "SELECT * FROM range(51)", bearer(tokens, "reader")).json()
    assert "more than 50 rows" in found["error_result"]
    assert ask(guarded, "SELECT * FROM range(50)", bearer(tokens, "reader")).json()["total_records"] == 50
    texts = {"texts": ["a"] * 51}
    ask(guarded, "UPLOAD MODEL letters FROM 'letters'", bearer(tokens, "all"))
    found = guarded.ask("POST", "/models/letters/predict", json=texts, headers=bearer(tokens, "reader"))
    assert (found.status_code, "51 rows are more than 50" in found.text) == (400, True)


def test_sql_reads_no_file_and_no_network(guarded: Running, tokens: dict[str, str]) -> None:
    secret = Path(tokens["elsewhere"]) / "secret.csv"
    for statement in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM read_text('{secret}')",
        f"COPY s FROM '{secret}'",
        f"COPY s FROM '../data/../../{secret}'",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
        f"UPLOAD MODEL m FROM '{secret.parent}'",
        "SELECT getenv('HOME')",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
    ):
        found = ask(guarded, statement, bearer(tokens, "all")).json()
        assert "error" in found or found["error_result"], statement
    for path in ("../thano.toml", "%2e%2e/thano.toml", "..%2fthano.toml", "/etc/passwd"):
        url = f"{guarded.url}/fm/api/v1/contents/{path}?option=download"
        prepared = requests.Request("GET", url, headers=bearer(tokens, "all")).prepare()
        prepared.url = url  # as it is written
        with requests.Session() as session:
            assert session.send(prepared, timeout=10).status_code in (403, 404), path


def test_the_log_has_neither_texts_nor_tokens(guarded: Running, tokens: dict[str, str]) -> None:
    ask(guarded, "SELECT 'a private text'", bearer(tokens, "reader"))
    guarded.ask("GET", "/query/log?search=private", headers=bearer(tokens, "reader"))
    log = guarded.log.read_text(encoding="utf-8")
    assert "private" not in log
    assert not [text for text in tokens.values() if text in log]
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["token"] for line in lines} >= {"reader", "all", None}
    assert all(line["status"] and line["milliseconds"] >= 0 for line in lines)


def test_a_token_is_kept_hashed_and_ends_at_once(guarded: Running, tokens: dict[str, str]) -> None:
    kept = guarded.workspace.server / "tokens.json"
    assert not [text for text in tokens.values() if text in kept.read_text(encoding="utf-8")]
    if os.name == "posix":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    other = Tokens(guarded.workspace)
    text = other.create("brief", ["read"])
    assert ask(guarded, "SELECT 1", {"Authorization": f"Bearer {text}"}).status_code == 200
    other.revoke("brief")
    assert ask(guarded, "SELECT 1", {"Authorization": f"Bearer {text}"}).status_code == 401


def test_names_of_tokens(workspace: Workspace) -> None:
    tokens = Tokens(workspace)
    text = tokens.create("one", ["build", "read"])
    assert len(text) > 40
    found = tokens.find(text)
    assert found is not None
    assert (found.name, found.rights) == ("one", ("read", "build"))
    assert tokens.find(text[:-1]) is None
    with pytest.raises(NameExists):
        tokens.create("one", ["read"])
    with pytest.raises(ThanoError, match="no name"):
        tokens.create("a b", ["read"])
    with pytest.raises(UnknownToken, match="no token two"):
        tokens.revoke("two")


def test_only_this_machine_is_served_without_a_token(workspace: Workspace) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1")] == [
        *(True, True, True, False, False)
    ]
    check_address(workspace, "127.0.0.1")
    with pytest.raises(ThanoError, match="there is no access token"):
        check_address(workspace, "0.0.0.0")
    command = [sys.executable, "-m", "thano_assets.interfaces.cli", "-w", str(workspace.root), "serve"]
    found = subprocess.run(
        [*command, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 1
    assert "there is no access token" in found.stderr
    Tokens(workspace).create("one", ["read"])
    check_address(workspace, "0.0.0.0")


def test_tokens_at_the_command_line(workspace: Workspace) -> None:
    def thano(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "thano_assets.interfaces.cli", "-w", str(workspace.root), "token"]
        return subprocess.run([*command, *words], capture_output=True, text=True)

    made = thano("create", "ci", "--rights", "read,build")
    assert made.returncode == 0
    assert Tokens(workspace).find(made.stdout.strip()) is not None
    assert thano("list").stdout.split("\t")[:2] == ["ci", "read,build"]
    assert thano("create", "x", "--rights", "read,admin").returncode == 2
    assert thano("revoke", "ci").returncode == 0
    assert thano("revoke", "ci").returncode == 1
    assert thano("list").stdout == ""
