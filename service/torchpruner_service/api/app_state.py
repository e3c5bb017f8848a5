"""What every request handler shares in one API process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import anyio
from fastapi import Request

from torchpruner_service.api.audit_trail import AuditTrail
from torchpruner_service.api.catalog import Catalog
from torchpruner_service.api.graph_cache import GraphCache
from torchpruner_service.api.quotas import Quotas
from torchpruner_service.api.readiness import Readiness
from torchpruner_service.auth.api_keys import KeyRing
from torchpruner_service.auth.rate_limit import RateLimits
from torchpruner_service.settings import Settings
from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.keys import Keys
from torchpruner_service.storage.objects import Objects

ANALYSES_AT_ONCE = 4


@dataclass(slots=True)
class AppState:
    settings: Settings
    redis: Any
    board: JobBoard
    objects: Objects
    keys: Keys
    graphs: GraphCache
    key_ring: KeyRing
    catalog: Catalog
    quotas: Quotas
    readiness: Readiness
    rates: RateLimits
    audit: AuditTrail
    analyses: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(ANALYSES_AT_ONCE)
    )
    """Large cut analyses at once: each may hold an answer of ``max_answer_bytes``."""


def app_state(request: Request) -> AppState:
    """The state of the application that serves ``request``."""
    return cast(AppState, request.app.state.pruner)
