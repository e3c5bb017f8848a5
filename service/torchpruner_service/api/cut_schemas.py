"""The bodies of saved cuts: a name for what was asked and what it removes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from torchpruner_service.api.schemas import Body, CutMany, GivenName, Note, Result

_COSTS = {
    "params_before": 25557032,
    "params_after": 25556732,
    "flops_before": 8178368512,
    "flops_after": 8176450048,
}


class CutSave(Body):
    """A cut to keep under a name: what to ask for, or the result of an analysis, or both.

    Of both, the result must be the answer to the request.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "two channels of conv1",
                    "request": {"cuts": [{"node": "self.conv1.weight", "index": [0, 1]}]},
                }
            ]
        },
    )
    name: GivenName
    note: Note | None = None
    request: CutMany | None = None
    result: Result | None = None


class SavedCutView(BaseModel):
    """A saved cut. Lists leave out `request` and `result`. The same cut of the same model has the same
    `fingerprint`, here and in measurements."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cut-maaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbbbbbb",
                    "model": "maaaaaaaaaaaaaaaaaaaaaaaaaa",
                    "name": "two channels of conv1",
                    "created_at": 1760000000.0,
                    "fingerprint": "cccccccccccccccccccccccccc",
                    **_COSTS,
                }
            ]
        }
    )
    id: str
    model: str
    name: str
    note: str | None = None
    created_at: float = Field(description="Unix seconds")
    fingerprint: str
    params_before: int
    params_after: int
    flops_before: int
    flops_after: int
    request: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
