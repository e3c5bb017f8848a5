"""Tells an ONNX model that was sent without its weights from one that has them."""

from __future__ import annotations

from math import prod

from torchpruner_core.importing.wire import Buffer, tensor_headers


def lacks_weights(data: Buffer) -> bool:
    """Whether some initializer declares elements and stores none of them."""
    return any(
        prod(header.dims) > 0 and header.stored == 0 and not header.external
        for header in tensor_headers(data)
    )
