"""Weights under which a cut can be seen.

A freshly initialised network hides mistakes: its batch norms are the identity, its layer scales
1e-6, its attention uniform. So constants become random, weights are scaled to keep the variance of
what passes (He et al., 2015, arXiv:1502.01852), and batch norms get statistics near, but
not equal to, those of the example input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from benchmarks.zoo.specimen import Inputs, call


def enliven(model: nn.Module, inputs: Inputs, seed: int = 0) -> None:
    """Change ``model``'s parameters and statistics in place."""
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if (
                    id(parameter) not in done
                    and parameter.is_floating_point()
                    and parameter.numel()
                ):
                    done.add(id(parameter))
                    _enliven_parameter(name, parameter.data, generator)
    for floor in FLOORS:
        _calibrate(model, inputs, generator, floor)
        if _amplification(model, inputs) < STEADY:
            return
    for _ in range(DAMPINGS):
        _damp(model)
        _calibrate(model, inputs, generator, FLOORS[-1])
        if _amplification(model, inputs) < STEADY:
            return


def _damp(model: nn.Module) -> None:
    """Make every matrix and kernel smaller: branches say less, and attention chooses less sharply."""
    done: set[int] = set()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2 and parameter.is_floating_point() and id(parameter) not in done:
                done.add(id(parameter))
                parameter.mul_(0.7)


FLOORS = (0.3, 1.0, 3.0, 10.0)
"""Least variances of a channel, relative to its layer's mean square, the first that keeps rounding small."""

DAMPINGS = 5
"""How often the weights of a network are made smaller that blows rounding up all the same."""

STEADY = 6000.0
"""How much a relative change of the input may grow on its way to the output."""


def _amplification(model: nn.Module, inputs: Inputs) -> float:
    """Return by how much a relative change of the input's last digits grows, layer after layer."""
    step = 1e-4
    nudged: Any = tree_map(
        lambda x: x * (1 + step * torch.sign(x - x.mean())) if x.is_floating_point() else x, inputs
    )
    before, after = (
        [x for x in tree_leaves(call(model, given)) if isinstance(x, torch.Tensor)]
        for given in (inputs, nudged)
    )
    worst = 0.0
    for x, y in zip(before, after, strict=True):
        if x.shape == y.shape and x.is_floating_point() and x.numel():
            worst = max(worst, float((x - y).abs().max() / (x.abs().max() + 1e-12)))
    return worst / step


def _enliven_parameter(name: str, values: torch.Tensor, generator: torch.Generator) -> None:
    first = float(values.flatten()[0])
    if bool((values == first).all()):
        if values.numel() == 1:
            values.fill_(first or 0.5)
        elif values.squeeze().ndim >= 2:
            values.normal_(
                0, max(values[0].numel(), 1) ** -0.5 if first == 0 else 0.3, generator=generator
            )
        elif first == 0 and name != "weight":
            values.normal_(0, 0.1, generator=generator)
        elif abs(first) < 0.5 and first != 0:
            values.uniform_(0.2, 0.6, generator=generator)
        else:
            values.uniform_(0.5, 1.5, generator=generator).mul_(first or 1.0)
        return
    if values.ndim >= 2 and values.shape[0] > 1:
        wanted = values[0].numel() ** -0.5
        spread = float(values.std())
        if 0 < spread < wanted:
            values.mul_(wanted / spread)
        elif spread > 1.5 * wanted:
            values.mul_(1.5 * wanted / spread)


def _calibrate(model: nn.Module, inputs: Inputs, generator: torch.Generator, floor: float) -> None:
    """Run the model once; each batch norm takes near the statistics of what reaches it."""

    def measure(module: Any, args: tuple[Any, ...]) -> None:
        x = args[0].detach()
        if not x.numel():
            return  # no box was found
        over = [dim for dim in range(x.ndim) if dim != 1]
        # Over one position the mean is the signal itself, which must not be taken away.
        positions = x.numel() // x.shape[1]
        mean = x.mean(over) * (1 - 1 / positions)
        off = x - mean.reshape([-1 if dim == 1 else 1 for dim in range(x.ndim)])
        variance = off.square().mean(over)
        # A channel that hardly varies over one image must not be blown up when a cut shifts it.
        variance = variance.clamp(min=max(floor * float(x.square().mean()), 1e-4))
        noise = torch.rand(2, len(mean), generator=generator).to(mean.dtype)
        module.running_mean.copy_(mean + 0.2 * (noise[0] - 0.5) * variance.sqrt())
        module.running_var.copy_(variance * (0.5 + noise[1]))

    handles = [
        module.register_forward_pre_hook(measure)
        for module in model.modules()
        if getattr(module, "running_mean", None) is not None
        and getattr(module, "running_var", None) is not None
    ]
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
