"""When waiting ends: deadlines, and what to say of a service that is not there."""

from __future__ import annotations

import re
import time

from torchpruner_client.errors import ServiceUnreachable
from torchpruner_client.steps import Watch


def unreachable(url: str, error: Exception) -> ServiceUnreachable:
    shown = re.sub(r"//[^/@]*@", "//***@", url)
    return ServiceUnreachable(
        f"{shown} does not answer ({type(error).__name__}: {error}). Is the service running there? "
        "`torchpruner-service serve` starts one; TORCHPRUNER_URL says where it is"
    )


def check(deadline: float | None, watch: Watch) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise TimeoutError(f"{watch.path} did not end within {watch.timeout} s; the job goes on")
