"""Jobs of Dagster's page that do what statements do: bring everything up to date, REBUILD, PROMOTE.

Each carries a statement, or a plan, out in the job's own process. What is made is a run of its own,
tagged with the job's run, and ends with it.
"""

# Without postponed annotations: Dagster looks at the type of ``context`` as an object.

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import OpExecutionContext

from thano_assets.errors import ThanoError
from thano_assets.orchestration import run_tags
from thano_assets.orchestration.log_progress import LogProgress
from thano_assets.session import Session
from thano_assets.sql.canonical import identifier

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

_MODEL = {
    "model": dg.Field(dg.String, description="Name of the model."),
    "version": dg.Field(dg.Int, description="Number of the version; SHOW VERSIONS OF MODEL lists them."),
}
_VERIFY = {
    "verify": dg.Field(
        dg.Bool,
        default_value=False,
        description="Register nothing; compare the version with what training it again gives.",
    )
}


def jobs(workspace: "Workspace") -> list[dg.JobDefinition]:
    """The jobs of a workspace."""

    @dg.op(name="everything")
    def everything(context: OpExecutionContext) -> None:
        with _session(context, workspace) as session:
            _bring_up_to_date(session, context)

    @dg.op(name="promote", config_schema=_MODEL)
    def promote(context: OpExecutionContext) -> None:
        with _session(context, workspace) as session:
            _execute(session, f"PROMOTE MODEL {_version_of(context.op_config)}", context)

    @dg.op(name="rebuild", config_schema=_MODEL | _VERIFY)
    def rebuild(context: OpExecutionContext) -> None:
        verify = " VERIFY" if context.op_config["verify"] else ""
        with _session(context, workspace) as session:
            _execute(session, f"REBUILD MODEL {_version_of(context.op_config)}{verify}", context)

    return [
        _job(
            everything,
            "bring_everything_up_to_date",
            "Makes what is out of date, of all statements of the catalog, as thano run does; nothing else.",
        ),
        _job(
            promote,
            "promote_model",
            "PROMOTE MODEL: the version answers from now on. Name model and version in the launchpad.",
        ),
        _job(
            rebuild,
            "rebuild_model",
            "REBUILD MODEL: trains a version again from what is kept of it. Name model and version in the "
            "launchpad.",
        ),
    ]


def _job(op: Any, name: str, description: str) -> dg.JobDefinition:
    return dg.GraphDefinition(name=name, node_defs=[op]).to_job(
        description=description, executor_def=dg.in_process_executor
    )


def _version_of(config: dict[str, Any]) -> str:
    return f"{identifier(config['model'])} VERSION {config['version']}"


@contextmanager
def _session(context: OpExecutionContext, workspace: "Workspace") -> "Iterator[Session]":
    with Session(workspace, progress=LogProgress(context.log), parent_run=context.run_id) as session:
        try:
            yield session
        except ThanoError as error:
            context.log.error(error.pretty())
            context.instance.add_run_tags(
                context.run_id, {run_tags.ERROR: run_tags.shortened(f"{error.code}: {error.message}")}
            )
            raise


def _execute(session: "Session", text: str, context: OpExecutionContext) -> None:
    context.log.info(text)
    result = session.execute(text)
    for warning in result.warnings:
        context.log.warning(warning)
    context.log.info(result.summary)


def _bring_up_to_date(session: "Session", context: OpExecutionContext) -> None:
    planned, result = session.bring_up_to_date()
    for one in planned:
        context.log.info(f"{one.action} {'/'.join(one.node.key)}: {one.reason}")
    if result is None:
        context.log.info("Nothing is out of date.")
        return
    for warning in result.warnings:
        context.log.warning(warning)
    context.log.info(result.summary)
