"""The Python client of torchpruner-service.

>>> from torchpruner_client import Client
>>> with Client("http://127.0.0.1:8000") as client:            # doctest: +SKIP
...     remote = client.upload(model, [torch.zeros(1, 3, 224, 224)])
...     result = remote.modules["self.conv1"].cut_analysis("weight", index=[0, 1], dim=0)

Results are :class:`torchpruner_core.CutResult`, so ``set_cut(model, result)`` takes them as they
are. Importing this needs numpy and httpx; torch is imported when an ``nn.Module`` is given, and
only then.
"""

from torchpruner_client.asynchronous import AsyncClient, AsyncRemoteModel
from torchpruner_client.errors import (
    ChangedMeanwhile,
    ConflictError,
    DownloadDamaged,
    DownloadTargetError,
    ForbiddenError,
    InvalidRequestError,
    JobFailed,
    ModelFailed,
    NotFoundError,
    NoWorkerError,
    RateLimitedError,
    ServiceError,
    ServiceUnreachable,
    UnauthorizedError,
    UnavailableError,
    WeightsRequired,
)
from torchpruner_client.records import (
    AuditEvent,
    Flops,
    FrontierPoint,
    Group,
    Job,
    Latency,
    LineageEntry,
    ModelInfo,
    PlanRecord,
    Readiness,
    Removed,
    SavedCut,
    ServiceInfo,
    StoredLatency,
    Worker,
)
from torchpruner_client.synchronous import Client, RemoteModel, RemoteModule
from torchpruner_core.cut_result import CutRequest, CutResult, TensorSpec

__all__ = [
    "AsyncClient",
    "AsyncRemoteModel",
    "AuditEvent",
    "ChangedMeanwhile",
    "Client",
    "ConflictError",
    "CutRequest",
    "CutResult",
    "DownloadDamaged",
    "DownloadTargetError",
    "Flops",
    "ForbiddenError",
    "FrontierPoint",
    "Group",
    "InvalidRequestError",
    "Job",
    "JobFailed",
    "Latency",
    "LineageEntry",
    "ModelFailed",
    "ModelInfo",
    "NoWorkerError",
    "NotFoundError",
    "PlanRecord",
    "RateLimitedError",
    "Readiness",
    "RemoteModel",
    "RemoteModule",
    "Removed",
    "SavedCut",
    "ServiceError",
    "ServiceInfo",
    "ServiceUnreachable",
    "StoredLatency",
    "TensorSpec",
    "UnauthorizedError",
    "UnavailableError",
    "WeightsRequired",
    "Worker",
]
