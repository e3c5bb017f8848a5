"""The webhook that a request asks for, checked before it is stored."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from torchpruner_service.problems import InvalidRequest
from torchpruner_service.settings import Settings


def webhook_of(url: str | None, secret: str | None, settings: Settings) -> list[dict[str, str]]:
    """Return the watchers of a job: none, or one with its secret.

    Raises ``InvalidRequest`` for a URL that is not HTTP(S), names no host, or is a private address.
    """
    if not url:
        return []
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or parts.username or not url.isascii():
        raise InvalidRequest(
            "Torchpruner-Webhook must be an http or https URL without a user name",
            slug="invalid-webhook",
        )
    try:
        private = not ipaddress.ip_address(host).is_global
    except ValueError:
        private = host == "localhost"
    if private and not settings.webhook_allow_private:
        raise InvalidRequest(
            "Torchpruner-Webhook must be a public address; an operator may allow others with "
            "TORCHPRUNER_WEBHOOK_ALLOW_PRIVATE",
            slug="invalid-webhook",
        )
    if not secret and not settings.webhook_secret.get_secret_value():
        raise InvalidRequest(
            "send Torchpruner-Webhook-Secret too, so that you can tell our calls from others'",
            slug="invalid-webhook",
        )
    return [{"url": url, "secret": secret or ""}]
