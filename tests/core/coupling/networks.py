"""Random small networks as ONNX files: images through convolutions, tokens through attention.

Every layer is one of the ways in which real networks tie, split, join or repeat their channels.
Sizes are small, so that a cut can be checked by brute force.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.core.coupling.constant_layers import CONSTANT_LAYERS
from tests.core.coupling.image_layers import IMAGE_LAYERS, IMAGE_VIEWS, conv
from tests.core.coupling.network import Draw, Network
from tests.core.coupling.token_layers import TOKEN_LAYERS, TOKEN_VIEWS, linear


@st.composite
def networks(draw: Draw, layers: int = 6, views: bool = False, constants: bool = False) -> bytes:
    """Return a strategy of ONNX files of one random network each.

    With ``views``, layers are drawn of those kinds that split an axis into several; with
    ``constants``, of images, and of those that count or address channels by themselves.
    """
    net = Network(draw)
    if constants or draw(st.booleans()):
        net.shape = (1, net.integer(1, 3), 3, 3)
        net.inputs["x"] = net.shape
        conv(net)
        kinds, last = IMAGE_VIEWS if views else IMAGE_LAYERS, conv
        if constants:
            kinds = (*CONSTANT_LAYERS, *CONSTANT_LAYERS, *kinds)
    else:
        net.shape = (2, 3, net.integer(2, 4))
        net.inputs["x"] = net.shape
        linear(net)
        kinds, last = TOKEN_VIEWS if views else TOKEN_LAYERS, linear
    for layer in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=layers)):
        net.remember()
        layer(net)
    last(net)
    return net.data()
