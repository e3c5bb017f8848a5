"""Importance: how much each slice of each axis matters, as ``Scores``; higher means keep.

::

    from the weights alone       magnitude, lamp, fpgm, batchnorm, random, custom
    from gradients on batches    taylor, fisher
    from activations on batches  activation (Wanda), fluctuation (FLAP)

Each takes the model and its graph and returns ``torchpruner_core.planning.scores.Scores`` with one array for
every axis of a parameter that the graph says can be shortened. The first line needs numpy alone, and
takes a mapping from node names to arrays in place of a model too.
"""

# ruff: noqa: F401  (the imports under TYPE_CHECKING give the lazy names their types)

from __future__ import annotations

from typing import TYPE_CHECKING

from torchpruner_core.lazy import lazy_names

_PUBLIC = {
    "magnitude": "weights",
    "lamp": "weights",
    "fpgm": "weights",
    "batchnorm": "weights",
    "random": "weights",
    "custom": "weights",
    "taylor": "gradients",
    "fisher": "gradients",
    "activation": "activations",
    "fluctuation": "activations",
}

__all__ = sorted([*_PUBLIC])

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)

if TYPE_CHECKING:
    from torchpruner_core.importance.activations import activation, fluctuation
    from torchpruner_core.importance.gradients import fisher, taylor
    from torchpruner_core.importance.weights import (
        batchnorm,
        custom,
        fpgm,
        lamp,
        magnitude,
        random,
    )
