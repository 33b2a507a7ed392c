"""Models as a service: the answers of PREDICT, one request at a time or many, by the version that counts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from .conftest import Running


@pytest.fixture(scope="module")
def served(server: Running) -> Running:
    server.run("UPLOAD MODEL letters FROM 'letters'")
    server.run("COPY words FROM '" + '[{"text":"abc"},{"text":"zzz x"},{"text":null}]' + "'")
    return server


def ask(server: Running, path: str, **body) -> requests.Response:
    return server.ask("POST", f"/models/{path}/predict", json=body)


def test_the_answers_are_those_of_predict(served: Running) -> None:
    wanted = served.run("PREDICT USING letters OPTIONS (text_col='text') AS SELECT * FROM words")
    found = ask(served, "letters", texts=["abc", "zzz x", None]).json()
    assert (found["model"], found["version"]) == ("letters", 1)
    for row, answer in zip(wanted, found["predictions"], strict=True):
        assert answer["label"] == row["predicted"]
        if row["predicted"] is None:
            assert answer["probabilities"] is None
        else:
            assert answer["probabilities"] == pytest.approx(row["probabilities"], abs=1e-4)
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
    rows = ask(served, "letters", rows=[{"TEXT": "abc", "other": 1}]).json()
    assert rows["predictions"][0]["label"] == found["predictions"][0]["label"]


def test_versions_and_aliases(served: Running) -> None:
    assert ask(served, "letters/versions/1", texts=["a"]).json()["version"] == 1
    assert ask(served, "letters@champion", texts=["a"]).json()["version"] == 1
    for path in ("letters/versions/9", "letters@nobody", "nothing"):
        assert ask(served, path, texts=["a"]).status_code == 404
    assert served.ask("GET", "/models").json()["models"][0]["champion"] == 1
    [version] = served.ask("GET", "/models/letters").json()["versions"]
    assert (version["kind"], version["classes"]) == ("classifier", ["negative", "positive"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"texts": ["a"], "rows": [{"text": "a"}]}, 400),
        ({"texts": "a"}, 422),
        ({"texts": [1]}, 422),
        ({"rows": [{"nope": "a"}]}, 404),
        ({"rows": [{"text": 7}]}, 400),
        ({"text": ["a"]}, 422),
        ({"texts": []}, 200),
    ],
)
def test_what_is_wrong_with_a_request_is_said(served: Running, body: dict, status: int) -> None:
    found = ask(served, "letters", **body)
    assert found.status_code == status, found.text
    if status == 200:
        assert found.json()["predictions"] == []
    else:
        assert found.json()["error"]["code"] == status
        assert found.json()["error"]["message"]


def metrics(server: Running) -> dict[str, float]:
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_requests_at_the_same_time_are_answered_together_and_each_its_own(served: Running) -> None:
    texts = [chr(97 + number % 26) * (1 + number % 7) for number in range(200)]
    alone = ask(served, "letters", texts=texts).json()["predictions"]
    before = metrics(served)
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda text: ask(served, "letters", texts=[text]).json(), texts))
    for answer, wanted in zip(found, alone, strict=True):
        [got] = answer["predictions"]
        assert got["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-3)
    after = metrics(served)
    passes = 'thano_model_batch_count{model="letters"}'
    assert after[passes] - before[passes] < 200
    assert (
        after['thano_model_texts_total{model="letters"}'] - before['thano_model_texts_total{model="letters"}']
        == 200
    )
    assert after['thano_model_queue{model="letters"}'] == 0
    assert after['thano_model_version{model="letters"}'] == 1


def test_a_promotion_is_followed_without_a_failed_request(served: Running) -> None:
    served.run("UPLOAD MODEL moving FROM 'letters'")
    assert ask(served, "moving", texts=["a"]).json()["version"] == 1
    served.run("UPLOAD MODEL moving OPTIONS (overwrite=True) FROM 'letters'")
    served.run("PROMOTE MODEL moving VERSION 1")
    until = time.monotonic() + 3
    while ask(served, "moving", texts=["a"]).json()["version"] != 1 and time.monotonic() < until:
        pass
    served.run("PROMOTE MODEL moving VERSION 2")
    seen, until = [], time.monotonic() + 10
    while time.monotonic() < until and 2 not in seen:
        answer = ask(served, "moving", texts=["a"])
        assert answer.status_code == 200
        seen.append(answer.json()["version"])
    assert seen[-1] == 2


def test_a_model_of_a_table_answers_rows(served: Running) -> None:
    served.run("CREATE TABLE numbers AS SELECT range AS a, range % 3 AS b, range * 2.0 AS y FROM range(120)")
    served.run(
        "BUILD MODEL line USING AutomlRegressor OPTIONS (target_col='y', time_left_for_this_task=3, "
        "max_trials=2) AS SELECT * FROM numbers"
    )
    found = ask(served, "line", rows=[{"a": 10, "b": 1}, {"a": 100, "b": 1}]).json()["predictions"]
    assert found[0]["prediction"] < found[1]["prediction"]
    assert ask(served, "line", texts=["a"]).status_code == 400
    assert ask(served, "line", rows=[{"nope": 1}]).status_code == 404
