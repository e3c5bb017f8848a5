"""What a recorded run is made of: values, and the calls that compute them.

A tape is functional: each call reads values and gives new ones. Writes in place and views of one
memory were followed by the recorder; :mod:`.translations` says what each call means in ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["input", "parameter", "buffer", "constant", "computed"]


class Value:
    """One tensor at one moment of the run.

    ``name`` is the parameter's, buffer's or input's own, else empty. ``fixed`` says that it follows
    from literals of the program alone; ``data`` then holds its contents (on the CPU), else
    ``None``. ``call`` computed it.
    """

    __slots__ = ("call", "data", "dtype", "fixed", "kind", "name", "number", "shape")

    def __init__(
        self, number: int, shape: tuple[int, ...], dtype: torch.dtype, kind: Kind, name: str = ""
    ) -> None:
        self.number = number
        self.shape = shape
        self.dtype = dtype
        self.kind = kind
        self.name = name
        self.fixed = False
        self.data: torch.Tensor | None = None
        self.call: Call | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"%{self.name or self.number}: {self.dtype}{list(self.shape)}"


class Call:
    """One operator call: ``name`` as in ``aten::add``, arguments with :class:`Value` for tensors.

    ``overload`` is the schema's (``Tensor``), ``module`` the dotted path of the module it ran in.
    """

    __slots__ = ("args", "kwargs", "module", "name", "outputs", "overload")

    def __init__(
        self,
        name: str,
        overload: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        module: str,
    ) -> None:
        self.name = name
        self.overload = overload
        self.args = args
        self.kwargs = kwargs
        self.module = module
        self.outputs: list[Value] = []

    @property
    def out(self) -> Value:
        """The first output."""
        return self.outputs[0]

    def reads(self) -> list[Value]:
        """Return the values among its arguments, in order."""
        found: list[Value] = []
        for arg in self.args:
            if type(arg) is Value:
                found.append(arg)
            elif type(arg) in (list, tuple):
                found += [each for each in arg if type(each) is Value]
        for arg in self.kwargs.values():
            if type(arg) is Value:
                found.append(arg)
        return found

    def __repr__(self) -> str:
        return f"{self.outputs} = {self.name}.{self.overload}{self.args}  # {self.module}"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A value of a tensor that the program's Python code read, so that it is a constant here.

    ``module`` is where (``self.encoder``), ``operator`` how (``item``), ``source`` which tensor,
    ``value`` what was read. With ``sizes`` it is the shapes of a result whose size data decides.
    """

    module: str
    operator: str
    source: str
    value: Any
    sizes: bool = False

    @property
    def name(self) -> str:
        """``self.encoder.item(attention_mask)``."""
        return f"{self.module}.{self.operator}({self.source})"


@dataclass(slots=True)
class Tape:
    """A recorded run; ``stored`` are the model's own tensors by name, ``outputs`` by output name."""

    calls: list[Call] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    stored: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    frozen: list[Frozen] = field(default_factory=list)
