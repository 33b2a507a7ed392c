"""What identifies each kind of statement, with each of its options: written by this module, held by a test.

``python -m tests.golden.statements`` adds new statements to ``statements.jsonl``; lines that are there never
change, because workspaces of today are told by them what is up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thano_assets.catalog import entry_of
from thano_assets.errors import ThanoError
from thano_assets.graph import Graph
from thano_assets.sql import parse
from thano_assets.sql.options import OPTION_SPECS
from thano_assets.sql.options.spec import OptionSpec

FILE = Path(__file__).with_suffix(".jsonl")
_ACCEPTED = Path(__file__).parents[1] / "sql" / "fixtures" / "accepted.txt"

_TRAIN = "AS SELECT text, label, age, seen FROM rows"
_ASK = "AS SELECT * FROM rows"
#: A statement of each kind that takes options; ``{}`` stands for them.
_TEMPLATES = {
    "COPY": "COPY t {} FROM 'rows.csv'",
    "BUILD MODEL": f"BUILD MODEL m USING ElectraEn {{}} {_TRAIN}",
    "BUILD BASE MODEL": f"BUILD MODEL b USING ElectraEn {{}} {_TRAIN}",
    "BUILD MODEL USING AutomlClassifier": f"BUILD MODEL m USING AutomlClassifier {{}} {_TRAIN}",
    "BUILD MODEL USING AutomlRegressor": f"BUILD MODEL m USING AutomlRegressor {{}} {_TRAIN}",
    "FIT MODEL": f"FIT MODEL f USING m VERSION 2 {{}} {_TRAIN}",
    "PREDICT": f"PREDICT USING m@candidate {{}} {_ASK}",
    "EXPLAIN PREDICT": f"EXPLAIN PREDICT USING m {{}} {_ASK}",
    "EVALUATE": f"CREATE TABLE e AS EVALUATE USING m {{}} {_ASK}",
    "CONVERT": f"CREATE OR REPLACE TABLE 벡터 AS CONVERT USING SBERTEn {{}} {_ASK}",
    "SEARCH TEXT": f"SEARCH TEXT USING SBERTEn {{}} {_ASK}",
    "SEARCH KEYWORD": f"SEARCH KEYWORD USING SBERTEn {{}} {_ASK}",
    "GET THANOSQL MODEL": "GET THANOSQL MODEL electra {}",
    "GET THANOSQL DATASET": "GET THANOSQL DATASET movie_review_data {}",
    "UPLOAD MODEL": "UPLOAD MODEL u {} FROM 'folder'",
}
#: Options that a kind cannot do without.
_NEEDED = {
    "BUILD BASE MODEL": "objective='replaced_token_detection'",
    "SEARCH TEXT": "search_input='a film'",
}
_BY_NAME = {
    "promote_if": "'accuracy > 0.8'",
    "evaluate_on": "'judges'",
    "columns": "{'age': 'BIGINT'}",
    "fresh_within": "'2 days'",
    "tags": "['team=mail', 'weekly']",
    "owner": "'ann@example.com'",
    "objective": "'classification'",
    "features_to_drop": "['seen']",
    "datetime_attribs": "['seen']",
    "ngram_range": "[1, 2]",
    "threshold": "0.5",
    "encoding": "'utf-8'",
    "tune": "5",
    "lang": "'en'",
    "search_by": "'text'",
}


def _value(kind: str, spec: OptionSpec) -> str:
    if kind.endswith("AutomlRegressor") and spec.name == "promote_if":
        return "'r2 > 0.5'"
    if spec.name in _BY_NAME:
        return _BY_NAME[spec.name]
    match str(spec.type):
        case "boolean":
            return str(not spec.default)
        case "choice":
            others = [one for one in spec.choices if one != spec.default]
            return repr((others or list(spec.choices))[0])
        case "integer":
            return str(int(max(spec.minimum or 0, 3)))
        case "number":
            return "0.25"
        case "cron":
            return "'0 3 * * 1'"
        case "mark":
            return "'|'"
        case "texts":
            return "['NA', '-']"
    return "'other'"


def texts() -> Iterator[str]:
    """The statements: all that the fixtures accept, and each kind with each option that it takes."""
    for block in _ACCEPTED.read_text(encoding="utf-8").strip("\n").split("\n\n"):
        yield block.rpartition("\n=> ")[0]
    for kind, template in _TEMPLATES.items():
        needed = _NEEDED.get(kind, "")
        yield template.format(f"OPTIONS ({needed})" if needed else "")
        for name, spec in OPTION_SPECS[kind].items():
            given = f"{name}={_value(kind, spec)}"
            both = given if not needed or needed.startswith(f"{name}=") else f"{needed}, {given}"
            yield template.format(f"OPTIONS ({both})")


def identity(text: str) -> dict[str, Any] | None:
    """All that stands for the statements of ``text`` in what a workspace keeps."""
    from thano_assets.orchestration.factory import op_name

    try:
        statements = parse(text)
    except ThanoError as error:
        return {"text": text, "error": error.code}
    entries = [entry for one in statements if (entry := entry_of(one)) is not None]
    nodes = Graph(entries).nodes.values()
    return {
        "text": text,
        "kinds": [one.kind for one in statements],
        "canonical": [one.canonical() for one in statements],
        "entries": [[entry.kind.value, entry.name, entry.digest] for entry in entries],
        "assets": [
            {
                "key": "/".join(node.key),
                "op": op_name(node.key),
                "code_version": node.code_version,
                "reads": ["/".join(key) for key in node.reads],
            }
            for node in nodes
        ],
    }


def kept() -> list[dict[str, Any]]:
    """The lines of the file."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Add what is new."""
    lines = kept() if FILE.exists() else []
    known = {line["text"] for line in lines}
    lines += [identity(text) for text in dict.fromkeys(texts()) if text not in known]
    FILE.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
