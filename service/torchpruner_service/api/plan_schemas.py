"""The bodies of plans: a budget, scores and rules in; widths, costs and one joint cut out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from torchpruner_service.api.schemas import Body, GivenName, Name, State, Warned

Amount = Annotated[
    str | Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)],
    Field(
        description="A share of what the model costs (`'50%'`, `0.5`), a number, or one with a unit",
        examples=["50%", "2 GFLOPs"],
    ),
]
Share = Annotated[float, Field(gt=0, le=1)]
Importance = Literal["magnitude", "lamp", "fpgm", "batchnorm", "random"]
Selector = Annotated[
    str | tuple[str, int],
    Field(description="A module, node, pattern or type, or an axis as `[node, dim]`"),
]


class PlanBudget(Body):
    """What the pruned model may cost at most; several limits all hold."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"flops": "50%", "params": "12M"}]}
    )
    flops: Amount | None = None
    macs: Amount | None = None
    params: Amount | None = None
    bytes: Amount | None = None
    memory: Amount | None = Field(default=None, description="Bytes of activations alive at once")
    latency: Amount | None = Field(default=None, description="Of one forward pass, measured")


class ScoredAxis(Body):
    """One number for each slice of one axis; higher means keep."""

    node: Name
    dim: int = Field(ge=0, le=15)
    values: list[float] = Field(min_length=1, max_length=2**24)


class PlanScores(Body):
    """Scores as `Scores.to_dict()` of the Python library gives them; any subset of the axes."""

    name: str = Field(default="", max_length=200)
    meta: dict[str, Any] = Field(default_factory=dict)
    axes: list[ScoredAxis] = Field(min_length=1, max_length=100_000)


class PlanRules(Body):
    """What a plan obeys. Mappings give a rule by module, pattern or type."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"round_to": 8, "protect": ["self.fc"]}]},
    )
    round_to: int | dict[str, int] = 1
    protect: list[Selector] = Field(default_factory=list, max_length=10_000)
    min_keep: int | dict[str, int] = 1
    max_cut: float | dict[str, float] = 1.0
    scope: Literal["global", "local", "isomorphic"] = "isomorphic"
    granularity: Literal["outer", "inner"] | dict[str, Literal["outer", "inner"]] = "outer"
    aggregate: Literal["mean", "sum", "max"] = "mean"
    normalize: Literal["cost", "mean", "max", "sum", "l2", "none"] = "cost"

    def plain(self) -> dict[str, Any]:
        """The rules as the planner's ``Rules.from_dict`` reads them."""
        found = self.model_dump(mode="json", exclude_unset=True)
        return {
            name: sorted(map(list, value.items())) if isinstance(value, dict) else value
            for name, value in found.items()
        }


class PlanRequest(Body):
    """A plan to make. Without `scores` and `importance` every group is cut by the same ratio."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "budget": {"flops": "50%"},
                    "rules": {"round_to": 8, "protect": ["self.fc"]},
                    "frontier": [0.75, 0.5, 0.25],
                }
            ]
        },
    )
    budget: PlanBudget
    scores: PlanScores | None = None
    importance: Importance | None = Field(
        default=None, description="Computed from the model's weights, which must be on the service"
    )
    rules: PlanRules = Field(default_factory=PlanRules)
    frontier: list[Share] = Field(
        default_factory=list, max_length=32, description="Shares of the cost to plan for as well"
    )
    order: bool = Field(
        default=False, description="Also give the slices of each axis in the order in which they go"
    )
    name: GivenName | None = None


class PlanName(Body):
    """Another name, or `null` for none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "half"}]})
    name: GivenName | None


class PlanDerive(Body):
    """A name to list the derived model under."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "half"}]})
    name: GivenName | None = None


class PlanWeights(Body):
    """The form of the file."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"format": "safetensors"}]}
    )
    format: Literal["safetensors", "npz"] = "safetensors"


class PlanLatency(Body):
    """Timed runs after warm-up runs."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"runs": 30, "warm_up": 5}]}
    )
    runs: int = Field(default=30, ge=1, le=1000)
    warm_up: int = Field(default=5, ge=1, le=100)
    threads: int = Field(default=0, ge=0, le=256)


class PlanView(Body):
    """A plan and how far it is; once it is ready, what it costs and cuts.

    `plan` with `result` put back into it is what `Plan.from_dict` of the Python library reads. Lists leave
    out `plan`, `result`, `widths` and `order`.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "id": "plan-maaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbbbbbbbbbbbb",
                    "model": "maaaaaaaaaaaaaaaaaaaaaaaaaa",
                    "state": "ready",
                    "stage": "ready",
                    "percent": 100.0,
                    "created_at": 1760000000.0,
                    "budget": {"flops": "50%"},
                    "costs": {"flops": {"before": 8178, "after": 4088, "limit": 4089}},
                }
            ]
        },
    )
    id: str
    model: str
    name: str | None = None
    state: State
    stage: str
    percent: float
    message: str | None = None
    problem: dict[str, Any] | None = None
    created_at: float = Field(description="Unix seconds")
    budget: dict[str, Any]
    rules: dict[str, Any] = Field(default_factory=dict)
    importance: str | None = None
    scores: str | None = Field(default=None, description="The name of the scores that were sent")
    costs: dict[str, Any] | None = None
    score_kept: float | None = Field(default=None, description="The share of all scores that stays")
    frontier: list[dict[str, Any]] = Field(default_factory=list)
    measured_on: dict[str, Any] | None = Field(
        default=None, description="Device, runtime and load, where a latency was measured"
    )
    widths: list[dict[str, Any]] | None = None
    order: list[dict[str, Any]] | None = Field(
        default=None, description="`axes` and the `index` of their slices, what goes first in front"
    )
    result: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    warnings: Warned = Field(default_factory=list)
