"""What ATen's schemas say about an operator: does it view, write, draw, or tell data to Python?"""

from __future__ import annotations

from typing import Any

import torch

IDENTITIES = frozenset({"aten::detach", "aten::alias", "aten::lift_fresh", "aten::lift"})
"""Views that change nothing."""

RUNNING_STATISTICS = {
    "aten::batch_norm": 5,
    "aten::native_batch_norm": 5,
    "aten::_native_batch_norm_legit": 5,
    "aten::cudnn_batch_norm": 5,
    "aten::_batch_norm_impl_index": 5,
    "aten::instance_norm": 5,
}
"""Operators that write to their fourth and fifth argument without saying so, and the flag that asks."""


class Operator:
    """One overload, read once.

    ``reads_data`` says that it returns numbers; ``writes`` gives the positions it writes to;
    ``draws`` that it is random; ``open_shape`` that its output's size may depend on data;
    ``keeps_statistics`` that it may write to its :data:`RUNNING_STATISTICS`;
    ``inplace_view`` that it gives the tensor itself another shape, as ``unsqueeze_`` does.
    """

    __slots__ = (
        "composite",
        "draws",
        "function",
        "identity",
        "inplace_view",
        "keeps_statistics",
        "name",
        "open_shape",
        "overload",
        "qualified",
        "reads_data",
        "tensor_list",
        "view",
        "writes",
        "writes_names",
    )

    def __init__(self, function: Any) -> None:
        schema = function._schema
        self.function = function
        name: str = schema.name
        arguments = schema.arguments
        written = [a.alias_info is not None and a.alias_info.is_write for a in arguments]
        self.writes = tuple(k for k, a in enumerate(arguments) if written[k] and not a.kwarg_only)
        self.writes_names = tuple(
            a.name for k, a in enumerate(arguments) if written[k] and a.kwarg_only
        )
        base = name.partition("::")[2]
        inplace = bool(self.writes) and base.endswith("_") and not base.endswith("__")
        self.name = name[:-1] if inplace else name
        self.overload: str = schema.overload_name
        self.qualified = f"{self.name}.{self.overload or 'default'}"
        kinds = [str(r.type) for r in schema.returns]
        self.reads_data = bool(kinds) and not any("Tensor" in kind for kind in kinds)
        self.tensor_list = len(kinds) == 1 and "[]" in kinds[0]
        tags = function.tags
        self.draws = torch.Tag.nondeterministic_seeded in tags
        self.inplace_view = torch.Tag.inplace_view in tags
        self.open_shape = torch.Tag.dynamic_output_shape in tags
        self.composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            function.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        )
        self.view = bool(function.is_view) and not self.writes and not self.writes_names
        self.identity = name in IDENTITIES
        self.keeps_statistics = self.name in RUNNING_STATISTICS


_KNOWN: dict[int, Operator] = {}
"""By the identity of the overload, which the entry holds: its own hash is computed in Python."""


def operator(function: Any) -> Operator:
    """Return what is known of an overload."""
    found = _KNOWN.get(id(function))
    if found is None:
        found = _KNOWN[id(function)] = Operator(function)
    return found
