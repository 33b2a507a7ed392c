"""What assets run on: the workspace, its files, the warehouse (DuckDB) and the registry (MLflow).

Every module here is plain Python over one library; only :mod:`.dagster` imports Dagster, and MLflow is
imported inside the functions that write to it. Nothing in this package knows statements.
"""
