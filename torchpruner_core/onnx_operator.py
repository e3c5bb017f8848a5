"""The manual's ``torchpruner.operator.onnx_operator``: operator classes to register others with.

``operator_register.regist('AveragePool2d', onnx_operator.onnx_local_pool)`` lets an operator be
analysed as an average pool is. The names on the right are where the classes live.
"""

from torchpruner_core.operators.convolution import Convolution as onnx_conv
from torchpruner_core.operators.elementwise import Elementwise as onnx_elementwise
from torchpruner_core.operators.matmul import Gemm as onnx_gemm
from torchpruner_core.operators.matmul import MatMul as onnx_matmul
from torchpruner_core.operators.normalization import BatchNormalization as onnx_bn
from torchpruner_core.operators.normalization import Softmax as onnx_softmax
from torchpruner_core.operators.padding import Pad as onnx_pad
from torchpruner_core.operators.pooling import Pool as onnx_local_pool
from torchpruner_core.operators.reduction import Reduction as onnx_reduce
from torchpruner_core.operators.reshaping import Expand as onnx_expand
from torchpruner_core.operators.reshaping import Flatten as onnx_flatten
from torchpruner_core.operators.reshaping import Reshape as onnx_reshape
from torchpruner_core.operators.reshaping import Squeeze as onnx_squeeze
from torchpruner_core.operators.reshaping import Transpose as onnx_transpose
from torchpruner_core.operators.sampling import Resize as onnx_resize
from torchpruner_core.operators.selection import Concat as onnx_concat
from torchpruner_core.operators.selection import Gather as onnx_gather
from torchpruner_core.operators.selection import Slice as onnx_slice
from torchpruner_core.operators.selection import Split as onnx_split

onnx_pool = onnx_local_pool

__all__ = [
    "onnx_bn",
    "onnx_concat",
    "onnx_conv",
    "onnx_elementwise",
    "onnx_expand",
    "onnx_flatten",
    "onnx_gather",
    "onnx_gemm",
    "onnx_local_pool",
    "onnx_matmul",
    "onnx_pad",
    "onnx_pool",
    "onnx_reduce",
    "onnx_reshape",
    "onnx_resize",
    "onnx_slice",
    "onnx_softmax",
    "onnx_split",
    "onnx_squeeze",
    "onnx_transpose",
]
