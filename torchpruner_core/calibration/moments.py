"""First and second moments of what a weight reads, in memory that does not grow with the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.calibration.batches import Batches
from torchpruner_core.calibration.errors import NotFiniteError
from torchpruner_core.calibration.readings import Reading, Recent, Watch


class Accumulator(Protocol):
    """What is summed up over the rows of the tensors that a weight reads."""

    def add(self, rows: torch.Tensor) -> None:
        """Add rows, shape ``(n, features)``, float32 or wider."""


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the widest float that a device sums in."""
    return torch.float32 if device.type == "mps" else torch.float64


class Moments:
    """Mean, variance and mean square of each feature."""

    def __init__(self) -> None:
        self.count = 0
        self._shift: torch.Tensor | None = None
        self._sum: torch.Tensor | None = None
        self._square: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        if not len(rows):
            return
        dtype = exact_dtype(rows.device)
        if self._shift is None or self._sum is None or self._square is None:
            # Sums around the first batch's mean keep their digits where the mean is large.
            self._shift = rows.mean(0)
            self._sum = torch.zeros_like(self._shift, dtype=dtype)
            self._square = torch.zeros_like(self._shift, dtype=dtype)
        apart = rows - self._shift
        self._sum += apart.sum(0).to(dtype)
        self._square += apart.square().sum(0).to(dtype)
        self.count += len(rows)

    @property
    def mean(self) -> NDArray[np.float64]:
        assert self._shift is not None and self._sum is not None
        return _numpy(self._shift.double().cpu() + self._sum.double().cpu() / self.count)

    @property
    def variance(self) -> NDArray[np.float64]:
        """The population variance, shape ``(features,)``."""
        assert self._sum is not None and self._square is not None
        apart = self._sum.double().cpu() / self.count
        found = self._square.double().cpu() / self.count - apart.square()
        return _numpy(found.clamp(min=0))

    @property
    def mean_square(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.variance + self.mean**2
        return found


class Gram:
    """Mean and covariance of all features with the kept ones: one matrix, ``(kept, features)``."""

    def __init__(self, kept: torch.Tensor) -> None:
        self.kept = kept
        self.count = 0
        self._shift: torch.Tensor | None = None
        self._sum: torch.Tensor | None = None
        self._product: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        if not len(rows):
            return
        dtype = exact_dtype(rows.device)
        if self._shift is None or self._sum is None or self._product is None:
            self._shift = rows.mean(0)
            self._sum = torch.zeros_like(self._shift, dtype=dtype)
            shape = (len(self.kept), rows.shape[1])
            self._product = torch.zeros(shape, dtype=dtype, device=rows.device)
        apart = rows - self._shift
        self._sum += apart.sum(0).to(dtype)
        self._product += (apart[:, self.kept].T @ apart).to(dtype)
        self.count += len(rows)

    @property
    def mean(self) -> torch.Tensor:
        """The mean of each feature, shape ``(features,)``."""
        assert self._shift is not None and self._sum is not None
        return self._shift.to(self._sum.dtype) + self._sum / self.count

    def covariance(self) -> torch.Tensor:
        """Return the covariance of the kept features with all, shape ``(kept, features)``."""
        assert self._product is not None and self._sum is not None
        apart = self._sum / self.count
        return self._product / self.count - torch.outer(apart[self.kept], apart)

    def second_moment(self) -> torch.Tensor:
        """Return the same around zero, shape ``(kept, features)``."""
        mean = self.mean
        return self.covariance() + torch.outer(mean[self.kept], mean)


class Observer:
    """One accumulator a reading; weights that read the same tensor share one.

    ``start`` makes the accumulator of a reading, or returns ``None`` for one that is of no interest.
    """

    def __init__(self, start: Callable[[Reading], Accumulator | None]) -> None:
        self._start = start
        self.found: dict[Reading, Accumulator] = {}
        self._first: dict[int, Reading] = {}
        self._recent = Recent()

    def __call__(self, reading: Reading, tensor: torch.Tensor) -> None:
        own = self.found.get(reading)
        fresh = None
        if own is None:
            fresh = self._start(reading)
            if fresh is None:
                return
        known = self._recent.get(tensor)
        if known is not None and (own is known or (own is None and alike(known, fresh))):
            self.found[reading] = known
            return
        if own is None:
            assert fresh is not None
            own = fresh
            self._first[id(own)] = reading
        elif self._first.get(id(own)) != reading:
            own = copy.deepcopy(own)  # until now it read what another weight read
            self._first[id(own)] = reading
        self.found[reading] = own
        rows = tensor.detach().reshape(-1, tensor.shape[-1])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        own.add(rows)
        self._recent.put(tensor, own)

    def forget_tensors(self) -> None:
        """Let go of the tensors that were read last."""
        self._recent.clear()


def alike(known: Accumulator, fresh: Accumulator | None) -> bool:
    """Whether two accumulators would sum up the same."""
    if isinstance(known, Gram) and isinstance(fresh, Gram):
        return torch.equal(known.kept, fresh.kept)
    return type(known) is type(fresh)


def observe(model: nn.Module, batches: Iterable[object], run: Batches, observer: Observer) -> Watch:
    """Run batches through a model and let ``observer`` see what each weight reads."""
    watch = Watch(model, observer)
    with torch.no_grad():
        for batch in batches:
            with watch:
                run.run(model, batch)
            observer.forget_tensors()
    return watch


def check_finite(reading: Reading, values: NDArray[np.float64] | torch.Tensor) -> None:
    """Raise ``NotFiniteError`` where what a weight read was not finite."""
    finite = (
        bool(torch.isfinite(values).all())
        if isinstance(values, torch.Tensor)
        else bool(np.isfinite(values).all())
    )
    if not finite:
        raise NotFiniteError(
            f"what {reading.weight} reads holds NaN or infinity: look at the batches, at the weights before "
            "it, or run the model in float32",
            node=reading.weight,
        )


def _numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()
