"""MLflow's web application as ``thano ui`` serves it: a first visit finds trainings instead of chats.

MLflow keeps what its page shows in the browser, and a new browser begins with the view of language models
and an assistant. The page of this application sets what a browser has not chosen yet, and nothing else: the
view of model training, no assistant, and in the list of a model's runs the columns that tell versions apart.
Its links to Dagster's runs lead to where Dagster's page is today.
Named in ``pyproject.toml`` as a plugin of MLflow's (``mlflow.app``).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from thano_assets.resources.environments import open_workspace, registry_of
from thano_assets.resources.mlflow_run import DAGSTER_RUNS

if TYPE_CHECKING:
    from fastapi import FastAPI

# Keys as MLflow's page spells them in the browser's storage.
_CHOICES = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.detectIssues.guidanceShown_v1": True,
}
_RUNS_OF = "MLflowLocalStorage-1.1-ExperimentPage-{}-ReactComponentState"
_COLUMNS = (
    "metrics.`accuracy`",
    "metrics.`f1_macro`",
    "metrics.`baseline_accuracy`",
    "metrics.`rmse`",
    "params.`base`",
    "tags.`rows`",
    "tags.`promoted`",
)


def create_app() -> FastAPI:
    """MLflow's own application, with these choices in its page."""
    from flask import redirect, request
    from mlflow.server import app
    from mlflow.server.fastapi_app import app as whole

    @app.after_request
    def with_choices(response: Any) -> Any:
        if request.path == "/" and response.mimetype == "text/html":
            response.direct_passthrough = False
            page = response.get_data(as_text=True)
            response.set_data(page.replace("<head>", f"<head><script>{_script()}</script>", 1))
            # The file's own mark says nothing of what was added.
            response.headers.pop("ETag", None)
            response.headers.pop("Last-Modified", None)
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.route(f"{DAGSTER_RUNS}<uuid:run_id>")
    def dagster_run(run_id: Any) -> Any:
        return redirect(f"{os.environ.get('THANO_DAGSTER_URL', 'http://127.0.0.1:3000')}/runs/{run_id}")

    return whole


def _script() -> str:
    """Sets what is not set."""
    choices = _CHOICES | _columns()
    written = json.dumps({key: json.dumps(value) for key, value in choices.items()}).replace("<", "\\u003c")
    return (
        f"try{{for(const[k,v]of Object.entries({written}))"
        "if(localStorage.getItem(k)===null)localStorage.setItem(k,v)}catch(e){}"
    )


def _columns() -> dict[str, Any]:
    """The columns of each experiment's list of runs; none where the experiments cannot be read."""
    found: dict[str, Any] = {}
    if "THANO_WORKSPACE" not in os.environ:
        return found
    with suppress(Exception):  # the page is shown as it is
        for experiment in registry_of(open_workspace()).client.search_experiments(max_results=1000):
            key = json.dumps([experiment.experiment_id])
            found[_RUNS_OF.format(key)] = {"selectedColumns": list(_COLUMNS)}
    return found
