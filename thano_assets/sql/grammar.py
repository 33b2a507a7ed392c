"""How every statement is written: the source of hints, of the reference and of its test."""

from __future__ import annotations

from dataclasses import dataclass


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@dataclass(frozen=True, slots=True)
class StatementSpec:
    """The form of one kind of statement.

    Attributes:
        kind: as ``Statement.option_kind`` says it.
        syntax: its form; ``[…]`` may be left out, ``{a | b}`` is a choice.
        doc: what it does, in a sentence.
        available: whether the engine carries it out already; the session says of the others that it does not.
    """

    kind: str
    syntax: str
    doc: str
    available: bool = True


#: The alias of the version that answers where a statement names no other.
CHAMPION = "champion"

_SPECS = (
    StatementSpec("QUERY", "SELECT … (any query of DuckDB's SQL)", "Gives the rows of the query."),
    StatementSpec(
        "COPY",
        "COPY table [OPTIONS (…)] FROM 'path'",
        "Makes a table from a file, a folder or glob of files, or inline JSON rows.",
    ),
    StatementSpec(
        "CREATE TABLE AS",
        "CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name "
        "AS {query | PREDICT … | EXPLAIN PREDICT … | EVALUATE … | CONVERT … | SEARCH …}",
        "Makes a table under a name of your choice.",
    ),
    StatementSpec("DROP TABLE", "DROP TABLE [IF EXISTS] name", "Removes a table."),
    StatementSpec(
        "BUILD MODEL",
        "BUILD MODEL name USING base [OPTIONS (…)] AS query",
        "Trains a text classifier on the rows of the query and registers it as a version of the model.",
    ),
    StatementSpec(
        "BUILD BASE MODEL",
        "BUILD MODEL name USING base OPTIONS (objective='replaced_token_detection', …) AS query",
        "Goes on with the pre-training of an encoder, in ELECTRA's or BERT's layout, on the texts of the "
        "query, by ELECTRA's objective: tell of each token whether a small generator has put it there. No "
        "labels are needed. The result is a base model: BUILD MODEL … USING name trains from it.",
    ),
    StatementSpec(
        "BUILD MODEL USING AutomlClassifier",
        "BUILD MODEL name USING AutomlClassifier [OPTIONS (…)] AS query",
        "Tries kinds of models and their settings on the columns of the query, trains the best to predict "
        "the class in label_col, and registers it as a version of the model.",
    ),
    StatementSpec(
        "BUILD MODEL USING AutomlRegressor",
        "BUILD MODEL name USING AutomlRegressor [OPTIONS (…)] AS query",
        "The same for a column of numbers.",
    ),
    StatementSpec(
        "FIT MODEL",
        "FIT MODEL name USING model [VERSION n] [OPTIONS (…)] AS query",
        "Goes on training from an existing model; the result is a new version.",
    ),
    StatementSpec(
        "PREDICT",
        "PREDICT USING model [VERSION n] [OPTIONS (…)] AS query",
        "Gives the rows of the query with the predicted label and its probability. Texts that the answering "
        "version has answered before do not go through the model again.",
    ),
    StatementSpec(
        "EVALUATE",
        "EVALUATE USING model [VERSION n] [OPTIONS (…)] AS query",
        "Measures a model on labelled rows.",
    ),
    StatementSpec(
        "CONVERT",
        "CONVERT USING model [VERSION n] [OPTIONS (…)] AS query",
        "Gives the rows of the query with an embedding of the text, FLOAT[n] of length 1. Texts that the "
        "model has embedded before do not go through it again.",
    ),
    StatementSpec(
        "SEARCH TEXT",
        "SEARCH TEXT USING model [VERSION n] [OPTIONS (…)] AS query",
        "Gives rows by falling similarity (cosine) to a text.",
    ),
    StatementSpec(
        "SEARCH KEYWORD",
        "SEARCH KEYWORD USING model [VERSION n] [OPTIONS (…)] AS query",
        "Gives the rows of the query with the keywords of each text: a column keyword, JSON of keyword and "
        "score.",
    ),
    StatementSpec(
        "LIST",
        "LIST {MODEL | TABLE | THANOSQL MODEL | THANOSQL DATASET}",
        "Lists models, tables, base models or data sets.",
    ),
    StatementSpec(
        "GET THANOSQL MODEL",
        "GET THANOSQL MODEL name [OPTIONS (…)]",
        "Puts a pre-built model into the registry.",
    ),
    StatementSpec(
        "GET THANOSQL DATASET",
        "GET THANOSQL DATASET name [OPTIONS (…)]",
        "Puts the files of a data set into the workspace.",
    ),
    StatementSpec(
        "DELETE MODEL",
        "DELETE MODEL name [VERSION n]",
        "Removes a model, or one version of it; never the version that answers.",
    ),
    StatementSpec(
        "UPLOAD MODEL",
        "UPLOAD MODEL name [OPTIONS (…)] FROM 'path'",
        "Registers a text classifier that was trained elsewhere: a folder as save_pretrained of "
        "Transformers writes it (config.json, model.safetensors, the tokenizer's files), or one with a state "
        "dict of torch (.bin, .pth) in place of the safetensors. Labels are those of id2label; no code of "
        "the folder is run.",
    ),
    StatementSpec(
        "SHOW CREATE",
        "SHOW CREATE {MODEL | TABLE} name",
        "Shows the statement that made a model or table, and all that went into it.",
    ),
    StatementSpec(
        "PLAN",
        "PLAN statement",
        "Shows what running the statement would make, rebuild or skip, and why; "
        "EXPLAIN before a ThanoSQL statement is the same.",
    ),
    StatementSpec(
        "SHOW LINEAGE",
        "SHOW LINEAGE name",
        "Shows the way from the raw file to a table or model: a row for each asset on it, with the version "
        "of its data, the run that made it and whether it is out of date.",
    ),
    StatementSpec(
        "SHOW VERSIONS",
        "SHOW VERSIONS OF MODEL name",
        "Shows a model's versions, newest first: which one answers, why each was promoted or not, its "
        "metrics and what it was made from.",
    ),
    StatementSpec(
        "SHOW TRAINING",
        "SHOW TRAINING OF MODEL name",
        "Shows the loss curve of a model's newest training, also while it runs.",
    ),
    StatementSpec(
        "SHOW RUNS",
        "SHOW RUNS",
        "Shows the latest 50 runs, newest first: what was made, who or what started it, and the error of "
        "those that failed.",
    ),
    StatementSpec(
        "PROMOTE MODEL",
        "PROMOTE MODEL name VERSION n",
        "Makes a version the champion, which answers when no version is named; what the former champion "
        "predicted is out of date then.",
    ),
    StatementSpec(
        "REBUILD MODEL",
        "REBUILD MODEL name [VERSION n] [VERIFY]",
        "Trains a version (the champion, unless one is named) again from the rows that were kept, its "
        "statement, seed, base model and parent, and registers the result as a new version. With VERIFY "
        "nothing is registered: the rows say what is equal and what differs.",
    ),
    StatementSpec(
        "EXPECT",
        "EXPECT condition ON table",
        "States what must hold for every row of a table before anything is made from it. A row breaks it "
        "where the condition is not true: NULL is not. The table is asked at once and each time it is made; "
        "while rows break it, nothing is made from the table. A condition with an aggregate, such as "
        "count(*) > 100, is about the table as a whole.",
    ),
    StatementSpec(
        "DROP EXPECT",
        "DROP EXPECT [condition] ON table",
        "Gives up an expectation of a table; without a condition all of them.",
    ),
    StatementSpec(
        "EXPLAIN PREDICT",
        "EXPLAIN PREDICT USING model [VERSION n] [OPTIONS (…)] AS query",
        "Gives the rows of the query with the predicted label, its probability and explanation: the words "
        "of the text that moved the prediction most, a list of token and weight. Weights are in log-odds, "
        "those above zero speak for the predicted label; over all words of a text they sum up to what the "
        "text changes against an empty one (integrated gradients). It costs some forty to fifty times a "
        "PREDICT: ask for the rows that matter.",
    ),
)

#: Every kind of statement, in the order of the reference.
STATEMENT_SPECS: dict[str, StatementSpec] = {spec.kind: spec for spec in _SPECS}


def syntax_of(kind: str) -> str:
    """The form of a kind of statement."""
    return STATEMENT_SPECS[kind].syntax


#: What a statement may begin with -> the kind that is meant, for suggestions.
FIRST_WORDS: dict[str, str] = {
    "SELECT": "QUERY",
    "WITH": "QUERY",
    "FROM": "QUERY",
    "VALUES": "QUERY",
    "SUMMARIZE": "QUERY",
    "DESCRIBE": "QUERY",
    "PIVOT": "QUERY",
    "UNPIVOT": "QUERY",
    "COPY": "COPY",
    "CREATE": "CREATE TABLE AS",
    "DROP": "DROP TABLE",
    "BUILD": "BUILD MODEL",
    "FIT": "FIT MODEL",
    "PREDICT": "PREDICT",
    "EVALUATE": "EVALUATE",
    "CONVERT": "CONVERT",
    "SEARCH": "SEARCH TEXT",
    "LIST": "LIST",
    "GET": "GET THANOSQL DATASET",
    "DELETE": "DELETE MODEL",
    "UPLOAD": "UPLOAD MODEL",
    "SHOW": "SHOW CREATE",
    "PLAN": "PLAN",
    "EXPLAIN": "PLAN",
    "PROMOTE": "PROMOTE MODEL",
    "REBUILD": "REBUILD MODEL",
    "EXPECT": "EXPECT",
}

#: First words of DuckDB's queries.
QUERY_WORDS = frozenset(
    _split(
        """
        SELECT WITH FROM VALUES TABLE SUMMARIZE DESCRIBE DESC SHOW
        PIVOT PIVOT_WIDER PIVOT_LONGER UNPIVOT EXPLAIN
        """
    )
)

_TABLE_HINT = (
    "A table here is what its statement says, so that it can be made again: "
    "CREATE OR REPLACE TABLE name AS SELECT …"
)
_CONNECTION_HINT = (
    "The engine looks after the database file itself; ask with SELECT, bring data in with COPY."
)

#: First words of DuckDB statements that are not queries -> the hint for them.
REFUSED_WORDS: dict[str, str] = {
    **dict.fromkeys(_split("INSERT UPDATE DELETE MERGE TRUNCATE ALTER"), _TABLE_HINT),
    **dict.fromkeys(
        _split(
            """
            ATTACH DETACH USE SET RESET PRAGMA LOAD CHECKPOINT FORCE VACUUM ANALYZE EXPORT IMPORT CALL
            COMMENT BEGIN START COMMIT ROLLBACK ABORT PREPARE EXECUTE DEALLOCATE
            """
        ),
        _CONNECTION_HINT,
    ),
    "INSTALL": "Extensions are not installed by statements, so that a workspace runs alike everywhere.",
    "IMPORT": "Bring data in with COPY name FROM 'path'.",
    "EXPORT": 'Write a result to a file with: thano sql "SELECT …" --format parquet.',
    "COMMIT": "Every statement is complete or without effect by itself; transactions are not needed.",
    "BEGIN": "Every statement is complete or without effect by itself; transactions are not needed.",
    "ROLLBACK": "Every statement is complete or without effect by itself; transactions are not needed.",
}

#: What ThanoSQL searches and prints and this engine does not.
MEDIA_WORDS = ("IMAGE", "AUDIO", "VIDEO")
MEDIA_REFUSAL = "This engine serves text and tables; it has no image, audio, video or time-series models."

#: Words that DuckDB reserves: they cannot name a table unless quoted.
RESERVED_WORDS = frozenset(
    _split(
        """
        ALL ANALYSE ANALYZE AND ANY ARRAY AS ASC ASYMMETRIC BOTH CASE CAST CHECK COLLATE COLUMN CONSTRAINT
        CREATE DEFAULT DEFERRABLE DESC DESCRIBE DISTINCT DO ELSE END EXCEPT FALSE FETCH FOR FOREIGN FROM
        GROUP HAVING IN INITIALLY INTERSECT INTO LAMBDA LATERAL LEADING LIMIT NOT NULL OFFSET ON ONLY OR
        ORDER PIVOT PIVOT_LONGER PIVOT_WIDER PLACING PRIMARY QUALIFY REFERENCES RETURNING SELECT SHOW SOME
        SUMMARIZE SYMMETRIC TABLE THEN TO TRAILING TRUE UNION UNIQUE UNPIVOT USING VARIADIC WHEN WHERE
        WINDOW WITH
        """
    )
)

#: Words of this language that cannot stand unquoted where a name is expected.
CLAUSE_WORDS = frozenset({"OPTIONS"})

#: Clauses of a query, for "did you mean" when DuckDB stumbles over a misspelt one.
CLAUSES = _split(
    """
    SELECT FROM WHERE GROUP ORDER HAVING LIMIT OFFSET UNION INTERSECT EXCEPT JOIN LEFT RIGHT INNER OUTER
    CROSS VALUES DISTINCT QUALIFY WINDOW BETWEEN EXISTS
    """
)
