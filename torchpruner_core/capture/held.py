"""What a run knows of its tensors: the value each holds, and whose memory it shows."""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.aliases import Step
from torchpruner_core.capture.tape import Value


class Held:
    """What is known of one tensor object.

    ``steps`` lead from its ``root``, the tensor whose memory it shows; ``version`` is the root's when
    ``value`` was taken.

    ``exact`` says of a root that its memory holds what the program would compute; ``shadow`` holds
    the contents where the tensor itself cannot (``meta``). ``published`` are the fixed values on the
    tape whose contents are this root's memory; ``borrowed`` that the memory is the model's own.
    """

    __slots__ = (
        "borrowed",
        "exact",
        "published",
        "root",
        "shadow",
        "steps",
        "tensor",
        "value",
        "version",
    )

    def __init__(self, tensor: torch.Tensor, value: Value, exact: bool) -> None:
        self.tensor = tensor
        self.value = value
        self.root = self
        self.steps: tuple[Step, ...] = ()
        self.version = 0
        self.exact = exact
        self.shadow: torch.Tensor | None = None
        self.published: list[Value] = []
        self.borrowed = False

    @property
    def contents(self) -> torch.Tensor:
        return self.tensor if self.shadow is None else self.shadow


def contents_of(value: Any) -> Any:
    """Return an argument with contents for what is held."""
    if isinstance(value, Held):
        return value.contents
    return [contents_of(each) for each in value] if type(value) is list else value


def plain(values: Any) -> Any:
    """Return arguments with values for what is held, as a tape has them."""
    return [
        each.value if isinstance(each, Held) else plain(each) if type(each) is list else each
        for each in values
    ]


def plain_names(named: dict[str, Any]) -> dict[str, Any]:
    """Return arguments by name as a tape has them."""
    return dict(zip(named, plain(named.values()), strict=True))
