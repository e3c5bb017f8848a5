"""What an operator can change, read from the environment once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_SERVICE = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """``shared_key`` lets everybody who reaches the dashboard act as that API key; without it each
    visitor gives a key where the service wants one. ``secret`` signs the session cookie; it is new
    at each start, since sessions end with the process. Port 0 takes a free one.
    ``public_url`` is the service's address in code that people copy; ``service_url`` unless
    given."""

    service_url: str = DEFAULT_SERVICE
    public_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    shared_key: str = ""
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> DashboardSettings:
        """Read TORCHPRUNER_URL and TORCHPRUNER_DASHBOARD_{HOST,PORT,API_KEY,PUBLIC_URL}.

        TORCHPRUNER_API_KEY is not read: a key that happens to be in the environment must not become
        everybody's.
        """
        known = os.environ if environment is None else environment
        prefix = "TORCHPRUNER_DASHBOARD_"
        given = {
            "service_url": (known.get("TORCHPRUNER_URL") or "").rstrip("/"),
            "public_url": (known.get(f"{prefix}PUBLIC_URL") or "").rstrip("/"),
            "host": known.get(f"{prefix}HOST") or "",
            "shared_key": known.get(f"{prefix}API_KEY") or "",
        }
        chosen = {key: value for key, value in given.items() if value}
        return cls(**chosen, port=int(known.get(f"{prefix}PORT") or 8080))
