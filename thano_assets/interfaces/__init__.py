"""Where people meet the engine: command line, notebook and the web interfaces of Dagster and MLflow.

Everything here is thin: words go into :class:`thano_assets.session.Session`, pictures come out.
"""
