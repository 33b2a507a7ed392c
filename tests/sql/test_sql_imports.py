"""Reading statements costs little: no library that takes seconds to import is needed for it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "dagster torch transformers mlflow pandas numpy pyarrow sklearn matplotlib IPython"


def loaded_after(code: str) -> set[str]:
    """The top-level modules loaded in a fresh interpreter after ``code``."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_parsing_a_query_loads_duckdb_and_nothing_heavy() -> None:
    loaded = loaded_after(
        "from thano_assets.sql import parse\nfrom thano_assets.sql.reads import tables_read\n"
        "parse('SELECT 1; BUILD MODEL m USING b AS SELECT * FROM t')\ntables_read('SELECT * FROM t')"
    )
    assert "duckdb" in loaded
    # DuckDB itself loads numpy where it is installed.
    assert not loaded & (set(HEAVY.split()) - {"numpy"})


def test_statements_without_a_query_do_not_even_load_duckdb() -> None:
    loaded = loaded_after("from thano_assets.sql import parse\nparse(\"LIST MODEL; COPY t FROM 'x.csv'\")")
    assert "thano_assets" in loaded
    assert not loaded & {"duckdb", *HEAVY.split()}
