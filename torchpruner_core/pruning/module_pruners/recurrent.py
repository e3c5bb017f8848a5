"""Recurrent layers: the hidden size is shared by every layer and direction of one module."""

from __future__ import annotations

from typing import Any

from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.pruning.module_pruners.base import BasePruner, LayerChange

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


class RNNPruner(BasePruner):
    """``LSTM``, ``GRU`` and ``RNN``, of several layers, in both directions, with a projection.

    ``weight_ih_l{k}`` is ``(gates x hidden, input)``, ``weight_hh_l{k}`` ``(gates x hidden, output)``
    and ``weight_hr_l{k}`` ``(output, hidden)``, where output is the projection's size if there is one.
    """

    def attributes(self, nn_module: Any, change: LayerChange) -> dict[str, Any]:
        gates = GATES[nn_module.mode]
        inputs = change.after["weight_ih_l0"][1]
        hidden = change.after["weight_hh_l0"][0] // gates
        output = change.after["weight_hh_l0"][1]
        directions = 2 if nn_module.bidirectional else 1
        for layer in range(nn_module.num_layers):
            for suffix in ("", "_reverse")[:directions]:
                expected = {
                    f"weight_ih_l{layer}{suffix}": (
                        gates * hidden,
                        inputs if layer == 0 else output * directions,
                    ),
                    f"weight_hh_l{layer}{suffix}": (gates * hidden, output),
                    f"bias_ih_l{layer}{suffix}": (gates * hidden,),
                    f"bias_hh_l{layer}{suffix}": (gates * hidden,),
                    f"weight_hr_l{layer}{suffix}": (output, hidden),
                }
                for attribute, shape in expected.items():
                    received = change.after.get(attribute, shape)
                    if received != shape:
                        raise ModulePrunerError(
                            f"{self.name}.{attribute} would have the shape {received}, and a "
                            f"{type(nn_module).__name__} of hidden size {hidden} needs {shape}: all its "
                            "layers and directions share one hidden size, so cut the same units of "
                            "each (cut_analysis_many), or build one module a layer",
                            module=self.name,
                            node=f"{self.name}.{attribute}",
                            expected=list(shape),
                            received=list(received),
                        )
        projected = nn_module.proj_size > 0
        if not projected and output != hidden:
            raise ModulePrunerError(
                f"{self.name} would take {output} and give {hidden} hidden units",
                module=self.name,
                expected=output,
                received=hidden,
            )
        return {
            "input_size": inputs,
            "hidden_size": hidden,
            "proj_size": output if projected else 0,
        }


class RNNCellPruner(BasePruner):
    """``LSTMCell``, ``GRUCell`` and ``RNNCell``: weights ``(gates x hidden, input or hidden)``."""

    def attributes(self, nn_module: Any, change: LayerChange) -> dict[str, Any]:
        rows, hidden = change.after["weight_hh"]
        if rows % hidden or change.after["weight_ih"][0] != rows:
            raise ModulePrunerError(
                f"{self.name} would have {rows} gate rows for {hidden} hidden units",
                module=self.name,
                expected=f"a multiple of {hidden}",
                received=rows,
            )
        return {"input_size": change.after["weight_ih"][1], "hidden_size": hidden}
