"""Errors as answers: a status, and the form that the public client reads."""

from __future__ import annotations

from typing import Any

from thano_assets.errors import (
    BaseModelUnavailable,
    BorrowedAsset,
    ChampionKept,
    ExpectationFailed,
    NameExists,
    PathRefused,
    PermissionRefused,
    RunFailed,
    ThanoError,
    TimeOver,
    UnknownColumn,
    UnknownDataset,
    UnknownExpectation,
    UnknownFile,
    UnknownModel,
    UnknownRun,
    UnknownSchema,
    UnknownTable,
    UnknownTemplate,
    WarehouseBusy,
    WorkspaceError,
)

_STATUS: dict[type[ThanoError], int] = {
    BaseModelUnavailable: 404,
    BorrowedAsset: 409,
    ChampionKept: 409,
    ExpectationFailed: 409,
    NameExists: 409,
    PathRefused: 403,
    PermissionRefused: 403,
    RunFailed: 500,
    TimeOver: 504,
    UnknownColumn: 404,
    UnknownDataset: 404,
    UnknownExpectation: 404,
    UnknownFile: 404,
    UnknownModel: 404,
    UnknownRun: 404,
    UnknownSchema: 404,
    UnknownTable: 404,
    UnknownTemplate: 404,
    WarehouseBusy: 503,
    WorkspaceError: 500,
}


def status_of(error: ThanoError) -> int:
    """The HTTP status that stands for an error; 400 where the request itself is wrong."""
    return next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), 400)


def body_of(status: int, message: str, error: ThanoError | None = None) -> dict[str, Any]:
    """The body of an answer that is an error; ``type`` names the kind of error as the command line does."""
    found: dict[str, Any] = {"code": status, "message": message}
    if error is not None:
        told = error.as_json()
        found |= {"type": told.pop("code")} | {
            name: value for name, value in told.items() if name != "message" and value is not None
        }
    return {"error": found}
