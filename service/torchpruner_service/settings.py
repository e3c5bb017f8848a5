"""Every setting of the service, read from the environment once.

Names start with ``TORCHPRUNER_``; ``REDIS_URL`` and ``STORAGE_URL`` are also read under those plain
names, since that is what deployment platforms inject.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20
GIB = 1 << 30

STORES = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"})
"""Schemes of a remote object store's URL."""


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "torchpruner-service"


class Settings(BaseSettings):
    """What an operator can change. Sizes are bytes, times seconds."""

    model_config = SettingsConfigDict(env_prefix="TORCHPRUNER_", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    data_dir: Path = Field(default_factory=_default_data_dir)

    redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("TORCHPRUNER_REDIS_URL", "REDIS_URL")
    )
    storage_url: str | None = Field(
        default=None, validation_alias=AliasChoices("TORCHPRUNER_STORAGE_URL", "STORAGE_URL")
    )
    redis_prefix: str = "torchpruner:"

    auth: Literal["auto", "on", "off"] = "auto"
    """``auto``: off only for the embedded service bound to loopback."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a service without keys answers to, beside addresses and ``localhost``."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """A port for ``/metrics`` alone, where no key is asked for; 0: none."""
    rate_limit: int = Field(default=0, ge=0)
    """Requests a minute for each key; 0 is no limit. A key may carry its own."""
    quota_models: int = Field(default=0, ge=0)
    quota_bytes: int = Field(default=0, ge=0)
    audit_events: int = Field(default=10_000, ge=0)
    """Events that the audit trail of one tenant keeps, the newest; 0 keeps no trail."""
    audit_days: float = Field(default=365.0, gt=0)
    webhook_secret: SecretStr = SecretStr("")
    webhook_allow_private: bool = False
    webhook_timeout: float = Field(default=10.0, gt=0)
    """Of one call in all, from the look-up of the name to the answer's status."""
    tenant_hooks: int = Field(default=4, gt=0)
    """Webhooks of one tenant that are called at once."""

    max_upload_bytes: int = Field(default=16 * GIB, gt=0)
    max_body_bytes: int = Field(default=64 * MIB, gt=0)
    """Of a JSON request; a long cut list is the largest."""
    max_answer_bytes: int = Field(default=128 * MIB, gt=0)
    """Of a cut analysis, about."""
    max_tensor_bytes: int = Field(default=8 * GIB, gt=0)
    """Of one declared input: shape x dtype."""
    max_unpacked_bytes: int = Field(default=32 * GIB, gt=0)
    upload_idle_timeout: float = Field(default=60.0, gt=0)
    download_idle_timeout: float = Field(default=60.0, gt=0)
    """Of an answer that its receiver does not take: it is broken off after so long."""
    body_timeout: float = Field(default=60.0, gt=0)
    """Of a JSON body in all. Uploads have ``upload_idle_timeout`` between two pieces instead."""
    request_head_timeout: float = Field(default=10.0, gt=0)
    """From a connection's opening, or the first byte of a request, to the end of its head."""
    max_connections: int = Field(default=2000, gt=0)
    """Open connections of one API process. Where there are more, the one that has waited longest
    without a request gives way."""
    upload_ttl: int = Field(default=24 * 3600, gt=0)
    max_open_uploads: int = Field(default=100, gt=0)
    """Resumable uploads that one tenant may have begun and not ended."""

    queues: tuple[Literal["build", "measure"], ...] = ("build", "measure")
    workers: int = Field(default=1, ge=0)
    """Worker processes that ``serve`` starts."""
    job_timeout: int = Field(default=600, gt=0)
    tenant_jobs: int = Field(default=0, ge=0)
    """Jobs of one tenant that run at once in each queue; tenants take turns. 0: all workers but one
    where keys are asked for, else all."""
    job_attempts: int = Field(default=3, gt=0)
    """Tries of a job whose worker was lost. A model that crashes its sandbox is never retried."""
    lease_seconds: float = Field(default=10.0, gt=0)
    result_ttl: int = Field(default=7 * 24 * 3600, gt=0)

    sandbox: Literal["require", "relaxed"] = "require"
    """``require``: refuse files that carry code where the kernel cannot confine them."""
    sandbox_memory: int = Field(default=8 * GIB, gt=0)
    sandbox_cpu_seconds: int = Field(default=600, gt=0)
    sandbox_files: int = Field(default=256, gt=0)
    sandbox_file_bytes: int = Field(default=4 * GIB, gt=0)
    sandbox_result_bytes: int = Field(default=64 * GIB, gt=0)

    execution_providers: tuple[str, ...] = ("CUDAExecutionProvider", "CPUExecutionProvider")
    threads: int = Field(default=0, ge=0)
    """Threads of a job's numerical libraries; 0 leaves it to them."""

    max_slices: int = Field(default=16_000_000, gt=0)
    """Of one graph: the sum of the lengths of axes that are not tied to each other. A small file may
    have less; see ``worker/handlers.py``."""
    graph_ttl: int = Field(default=6 * 3600, gt=0)
    """How long Redis keeps a graph that nobody asks for; the object store has it."""
    graph_cache_bytes: int = Field(default=64 * MIB, gt=0)
    """Solved graphs (as stored) that one API process keeps unpacked."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("TORCHPRUNER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_url_reads(cls, url: str | None) -> str | None:
        if not url:
            return None
        try:
            parsed = urlsplit(url)
            known = parsed.scheme in {"redis", "rediss", "unix"} and (parsed.port or 1)
        except ValueError as error:
            raise ValueError(f"{error}; write redis://:PASSWORD@HOST:6379/0") from None
        if not known:
            raise ValueError("write redis://, rediss:// or unix://, like redis://HOST:6379/0")
        return url

    @field_validator("storage_url")
    @classmethod
    def _storage_url_reads(cls, url: str | None) -> str | None:
        if not url:
            return None
        parsed = urlsplit(url)
        if parsed.scheme == "file":
            if parsed.netloc or not parsed.path.startswith("/"):
                raise ValueError(
                    "a folder is written with its whole path, like file:///srv/objects"
                )
        elif parsed.scheme not in STORES or not parsed.netloc:
            raise ValueError("write s3://BUCKET, gs://BUCKET, az://CONTAINER or file:///FOLDER")
        return url

    @property
    def embedded(self) -> bool:
        """Whether the service starts its own Valkey."""
        return self.redis_url is None

    @property
    def socket_path(self) -> Path:
        """The embedded Valkey's unix socket."""
        return self.data_dir / "valkey" / "valkey.sock"

    @property
    def effective_redis_url(self) -> str:
        return self.redis_url or f"unix://{self.socket_path}"

    @property
    def effective_storage_url(self) -> str:
        return self.storage_url or (self.data_dir / "objects").resolve().as_uri()

    @property
    def scratch_dir(self) -> Path:
        """Where uploads and artifacts are staged before they reach the object store."""
        return self.data_dir / "scratch"

    @cached_property
    def auth_required(self) -> bool:
        if self.auth == "auto":
            return not (self.embedded and is_loopback(self.host))
        return self.auth == "on"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to ``host``."""
    return host in {"localhost", "::1"} or host.startswith("127.")
