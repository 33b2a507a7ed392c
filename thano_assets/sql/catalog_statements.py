"""Reading statements on what there is: LIST, SHOW, and GET of what LIST THANOSQL names."""

from __future__ import annotations

from thano_assets.sql.options import Options
from thano_assets.sql.queries import QueryReader
from thano_assets.sql.statements import (
    GetThanosql,
    ListItems,
    ShowCreate,
    ShowLineage,
    ShowRuns,
    ShowTraining,
    ShowVersions,
    Statement,
)


class CatalogReader(QueryReader):
    """The part of the parser that reads statements on what there is."""

    def list_items(self) -> ListItems:
        """``LIST …``."""
        first = self.position
        self.position += 1
        if self.accept("THANOSQL"):
            what = self.choice("LIST", "MODEL", "DATASET")
            what = f"THANOSQL {what}"
        else:
            what = self.choice("LIST", "MODEL", "TABLE", "THANOSQL")
        return ListItems(what=what, **self.finish(first, Options("LIST")))

    def get_thanosql(self) -> GetThanosql:
        """``GET THANOSQL …``."""
        first = self.position
        self.position += 1
        self.expect("THANOSQL", "GET THANOSQL DATASET")
        what = self.choice("GET THANOSQL DATASET", "MODEL", "DATASET")
        kind = f"GET THANOSQL {what}"
        name, name_span = self.name(f"the name of a {'data set' if what == 'DATASET' else 'model'}", kind)
        options = self.options(kind)
        return GetThanosql(what=what, name=name, name_span=name_span, **self.finish(first, options))

    def show(self) -> Statement:
        """``SHOW …``; what is not of the language is DuckDB's own SHOW."""
        first = self.position
        if self.accept("SHOW", "CREATE"):
            what = self.choice("SHOW CREATE", "MODEL", "TABLE")
            name, name_span = self.table("SHOW CREATE") if what == "TABLE" else self.model("SHOW CREATE")
            common = self.finish(first, Options("SHOW CREATE"))
            return ShowCreate(what=what, name=name, name_span=name_span, **common)
        if self.sees("SHOW", "LINEAGE") and self.peek(2) is not None:
            self.position += 2
            name, name_span = self.name("the name of a table or model", "SHOW LINEAGE")
            common = self.finish(first, Options("SHOW LINEAGE"))
            return ShowLineage(name=name, name_span=name_span, **common)
        for word, make in (("VERSIONS", ShowVersions), ("TRAINING", ShowTraining)):
            if self.sees("SHOW", word) and self.peek(2) is not None:
                kind = f"SHOW {word}"
                self.position += 2
                self.expect("OF", kind)
                self.expect("MODEL", kind)
                name, name_span = self.model(kind)
                common = self.finish(first, Options(kind))
                return make(name=name, name_span=name_span, **common)
        if self.accept("SHOW", "RUNS"):
            return ShowRuns(**self.finish(first, Options("SHOW RUNS")))
        return self.query_statement()
