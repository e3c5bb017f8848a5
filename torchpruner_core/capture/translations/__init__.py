"""ATen to ONNX, one family of operators a file; importing the package registers all of them."""

from torchpruner_core.capture.translations import (  # noqa: F401  (imported to register)
    attention,
    casting,
    convolution,
    creation,
    elementwise,
    experts,
    indexing,
    joining,
    matmul,
    normalization,
    padding,
    pooling,
    quantization,
    recurrent,
    reduction,
    reshaping,
    sampling,
    scattering,
    selection,
    sorting,
)
