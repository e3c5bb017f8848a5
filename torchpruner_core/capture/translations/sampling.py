"""Images at another size, and images sampled at computed places.

Sources: https://onnx.ai/onnx/operators/onnx__Resize.html, onnx__GridSample.html
"""

from __future__ import annotations

from typing import Any

import torch

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


def _resize(g: Writer, call: Call, x: Value, scales: Any, **settings: Any) -> str:
    dims = x.rank - 2
    axes = list(range(2, x.rank))
    given = [s for s in scales if s is not None]
    if len(given) == dims and all(
        int(n * s) == out for n, s, out in zip(x.shape[2:], given, call.out.shape[2:], strict=True)
    ):
        factors = g.tensor(torch.tensor([1.0, 1.0, *given], dtype=torch.float32))
        return g.op("Resize", x, None, factors, **settings)
    return g.op("Resize", x, None, None, g.ints(list(call.out.shape[2:])), axes=axes, **settings)


def _nearest(exact: bool) -> Any:
    def translate(g: Writer, call: Call, x: Value, size: Any, *scales: Any) -> str:
        if exact:
            return _resize(
                g,
                call,
                x,
                scales,
                mode="nearest",
                coordinate_transformation_mode="half_pixel",
                nearest_mode="round_prefer_ceil",
            )
        return _resize(
            g,
            call,
            x,
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    return translate


def _smooth(mode: str, antialias: bool = False) -> Any:
    def translate(
        g: Writer, call: Call, x: Value, size: Any, align_corners: bool, *scales: Any
    ) -> str | None:
        if antialias and align_corners:
            return None  # PyTorch's grid is not that of ONNX's align_corners: the operator stays opaque
        corners = "align_corners" if align_corners else "half_pixel"
        return _resize(
            g,
            call,
            x,
            scales,
            mode=mode,
            coordinate_transformation_mode=corners,
            cubic_coeff_a=(-0.5 if antialias else -0.75) if mode == "cubic" else None,
            antialias=1 if antialias else None,
            exclude_outside=1 if antialias else None,
        )

    return translate


for _dims in (1, 2, 3):
    aten(f"upsample_nearest{_dims}d.default")(_nearest(exact=False))
    aten(f"_upsample_nearest_exact{_dims}d.default")(_nearest(exact=True))
for _name in ("linear1d", "bilinear2d", "trilinear3d"):
    aten(f"upsample_{_name}.default")(_smooth("linear"))
aten("upsample_bicubic2d.default")(_smooth("cubic"))
aten("_upsample_bilinear2d_aa.default")(_smooth("linear", antialias=True))
aten("_upsample_bicubic2d_aa.default")(_smooth("cubic", antialias=True))


@aten("grid_sampler grid_sampler_2d grid_sampler_3d")
def grid_sample(
    g: Writer, call: Call, x: Value, grid: Value, mode: int, padding: int, align_corners: bool
) -> str:
    return g.op(
        "GridSample",
        x,
        grid,
        mode=("linear", "nearest", "cubic")[mode],
        padding_mode=("zeros", "border", "reflection")[padding],
        align_corners=int(align_corners),
    )


@aten("affine_grid_generator")
def affine_grid(g: Writer, call: Call, theta: Value, size: Any, align_corners: bool) -> str:
    return g.op("AffineGrid", theta, g.ints(list(size)), align_corners=int(align_corners))
