"""API keys. A key is ``tp_<id>_<secret>``; only a hash of the secret is stored.

The secret has 160 random bits, so a plain sha256 of it cannot be guessed back; a slow password hash
would only slow every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from torchpruner_service.problems import InvalidRequest, NotFound, Unauthorized
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

SCOPES = ("read", "write", "metrics", "admin")
CACHE_SECONDS = 3.0
"""How long a revoked key may still work in a process that has seen it."""

_KEY = re.compile(r"tp_([a-z0-9]{12})_([a-z0-9]{40})")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a tenant, the key's id, what it may do and how much."""

    tenant: str = "default"
    key: str = "anonymous"
    scopes: frozenset[str] = frozenset(SCOPES)
    rate_limit: int | None = None
    quota_models: int | None = None
    quota_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key, without its secret. Times are Unix seconds."""

    id: str
    tenant: str
    scopes: tuple[str, ...]
    secret_hash: str
    name: str = ""
    created_at: float = field(default_factory=time.time)
    revoked_at: float | None = None
    rate_limit: int | None = None
    quota_models: int | None = None
    quota_bytes: int | None = None

    def principal(self) -> Principal:
        scopes = set(self.scopes)
        if "admin" in scopes:
            scopes |= set(SCOPES)
        return Principal(
            self.tenant,
            self.id,
            frozenset(scopes),
            self.rate_limit,
            self.quota_models,
            self.quota_bytes,
        )


def create_key(
    objects: Objects,
    tenant: str,
    scopes: Iterable[str],
    *,
    name: str = "",
    rate_limit: int | None = None,
    quota_models: int | None = None,
    quota_bytes: int | None = None,
) -> tuple[ApiKey, str]:
    """Store a new key and return it with its text, which is not kept anywhere.

    Raises ``InvalidRequest`` for an unknown scope or a tenant's name that is not a DNS label.
    """
    chosen = tuple(dict.fromkeys(scopes))
    unknown = [scope for scope in chosen if scope not in SCOPES]
    if unknown or not chosen:
        raise InvalidRequest(
            f"scopes are {', '.join(SCOPES)}, not {', '.join(unknown) or 'nothing'}"
        )
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequest("a tenant's name has lower-case letters, digits and dashes, up to 63")
    identifier, secret = _random(12), _random(40)
    key = ApiKey(
        identifier,
        tenant,
        chosen,
        _hash(secret),
        name=name,
        rate_limit=rate_limit,
        quota_models=quota_models,
        quota_bytes=quota_bytes,
    )
    objects.put_json(layout.api_key(identifier), asdict(key))
    return key, f"tp_{identifier}_{secret}"


def list_keys(objects: Objects) -> list[ApiKey]:
    """Every key, revoked ones included, oldest first."""
    found = [_parse(objects.get_json(path)) for path in objects.keys("keys/")]
    return sorted((key for key in found if key is not None), key=lambda key: key.created_at)


def revoke_key(objects: Objects, identifier: str) -> ApiKey:
    """Revoke a key for ever. Raises ``NotFound``."""
    key = _parse(objects.get_json(layout.api_key(identifier)))
    if key is None:
        raise NotFound(f"there is no key {identifier}; `torchpruner-service keys list` shows them")
    revoked = ApiKey(**{**asdict(key), "revoked_at": key.revoked_at or time.time()})
    objects.put_json(layout.api_key(identifier), asdict(revoked))
    return revoked


class KeyRing:
    """Checks keys for the API; remembers each for :data:`CACHE_SECONDS`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._seen: dict[str, tuple[float, ApiKey | None]] = {}

    async def check(self, text: str) -> Principal:
        """Return who holds the key ``text``. Raises ``Unauthorized``, always with the same
        words."""
        match = _KEY.fullmatch(text)
        if match is None:
            raise _refused()
        identifier, secret = match.groups()
        key = await self._find(identifier)
        # Compared even where there is no key, so that time does not tell which ids exist.
        expected = key.secret_hash if key is not None else "0" * 64
        right = hmac.compare_digest(expected, _hash(secret))
        if key is None or not right or key.revoked_at is not None:
            raise _refused()
        return key.principal()

    async def _find(self, identifier: str) -> ApiKey | None:
        now = time.monotonic()
        seen = self._seen.get(identifier)
        if seen is not None and now - seen[0] < CACHE_SECONDS:
            return seen[1]
        key = _parse(await self._objects.aget_json(layout.api_key(identifier)))
        if len(self._seen) > 10_000:
            self._seen.clear()
        self._seen[identifier] = (now, key)
        return key


def _refused() -> Unauthorized:
    return Unauthorized(
        "send `Authorization: Bearer tp_...` with a key made by `torchpruner-service keys create`",
        headers={"WWW-Authenticate": 'Bearer realm="torchpruner"'},
    )


def _parse(data: Any) -> ApiKey | None:
    if not isinstance(data, dict):
        return None
    return ApiKey(**{**data, "scopes": tuple(data["scopes"])})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _random(length: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(secrets.choice(alphabet) for _ in range(length))
