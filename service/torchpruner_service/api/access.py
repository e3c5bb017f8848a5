"""Who asks, and whether they may: the dependencies that routes declare."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from torchpruner_service.api.app_state import AppState, app_state
from torchpruner_service.api.extra_headers import add_headers
from torchpruner_service.auth.api_keys import Principal
from torchpruner_service.problems import Forbidden

_bearer = HTTPBearer(
    auto_error=False,
    description="An API key from `torchpruner-service keys create`. Not asked for by the embedded "
    "service on loopback.",
)

State = Annotated[AppState, Depends(app_state)]


async def principal(
    request: Request,
    state: State,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Principal:
    """Return who asks, after counting the request against the key's rate."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    if state.settings.auth_required:
        who = await state.key_ring.check(credentials.credentials if credentials else "")
    else:
        who = Principal()
    limit = state.settings.rate_limit if who.rate_limit is None else who.rate_limit
    if limit:
        headers = await state.rates.check(f"{who.tenant}:{who.key}", limit)
        add_headers(request, headers)
    request.state.tenant = who.tenant
    request.state.principal = who
    return who


def _scoped(scope: str) -> object:
    async def check(who: Annotated[Principal, Depends(principal)]) -> Principal:
        if scope not in who.scopes:
            raise Forbidden(
                f"this key has no scope {scope!r}; make one with `torchpruner-service keys create "
                f"--scopes {scope}`",
                required=scope,
                scopes=sorted(who.scopes),
            )
        return who

    # Named in the OpenAPI document as the role that the key needs.
    return Security(check, scopes=[scope])


Reader = Annotated[Principal, _scoped("read")]
Writer = Annotated[Principal, _scoped("write")]
MetricsReader = Annotated[Principal, _scoped("metrics")]
