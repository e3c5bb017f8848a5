"""What a file has lost on its way from PyTorch, told so that nobody misses it later.

Exporters fold batch norms into convolutions, transpose the weights of linears and drop the names of
what they folded. The graph is right all the same; a cut of it fits the ``nn.Module`` only where the
names and shapes still do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

KEEPS_ALL = (
    "torch.onnx.export(model, args, dynamo=True, optimize=False), or the module itself given to "
    "tp.ONNXGraph or client.upload, keeps them"
)
KEEPS_NORMS = (
    "torch.onnx.export(model, args, dynamo=False, do_constant_folding=False, "
    "training=torch.onnx.TrainingMode.PRESERVE), or the module itself given to tp.ONNXGraph or "
    "client.upload, keeps them"
)

FOLDED_NORMS = "batch norms seem to be folded into"
"""How the note about folded norms begins, by which a replay tells it."""


def notes_of(
    producer: str,
    program: Iterable[Any],
    unnamed: int,
    transposed: Iterable[str],
    convolutions: int,
) -> list[str]:
    """Return a sentence for each thing lost.

    ``unnamed`` parameters were named after the modules that read them; ``transposed`` are weights of
    linears stored as (in, out); ``convolutions`` have weights without names.
    """
    found = []
    is_torch = producer.startswith("pytorch")
    if unnamed:
        found.append(
            f"{unnamed} parameters have no names in the file and are named after the modules that read "
            f"them; {KEEPS_ALL}"
        )
    names = list(transposed)
    if names:
        found.append(
            f"the weights of {len(names)} linear layers are stored transposed, as (in, out): {names[0]}"
            + (" and others" if len(names) > 1 else "")
            + "; set_cut turns them round on an nn.Linear"
        )
    has_norms = any(node.op_type == "BatchNormalization" for node in program)
    if is_torch and convolutions and not has_norms:
        found.append(f"{FOLDED_NORMS} {convolutions} convolutions; {KEEPS_NORMS}")
    return found
