"""timm: at least one architecture of each of its modules, small ones with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.specimen import Inputs, Specimen, image

SMALL = 64
"""Image size in pixels of models that take any."""

MODULE: tuple[str, ...] = (
    "byobnet/test_byobnet", "convnext/convnextv2_atto", "deit/deit_tiny_distilled_patch16_224:224",
    "ghostnet/ghostnetv3_050", "mambaout/test_mambaout", "mobilevit/mobilevitv2_050",
    "nfnet/test_nfnet", "regnet/regnety_002", "resnet/test_resnet", "starnet/starnet_s050",
    "vision_transformer/test_vit2:160", "vision_transformer/test_vit3:160",
    "vision_transformer/test_vit4:160", "vision_transformer/test_vit:160",
    "vision_transformer_relpos/test_vit_relpos:160",
)  # fmt: skip
"""``module/architecture:pixels`` that become programs as the ``nn.Module`` itself."""

TRACED: tuple[str, ...] = (
    "beit/beit_base_patch16_224:224", "byoanet/eca_botnext26ts_256:256", "byobnet/gernet_s",
    "cait/cait_xxs24_224:224", "coat/coat_lite_tiny:224", "convit/convit_tiny:224",
    "convmixer/convmixer_768_32", "convnext/convnext_atto", "cpubone/cpubone_nano",
    "crossvit/crossvit_9_240:240", "csatv2/csatv2", "cspnet/cs3darknet_focus_s", "cspnext/cspnext_tiny",
    "davit/davit_tiny", "deepseek_vit/deepseek_vit_412m:224", "densenet/densenet121", "dla/dla34",
    "dpn/dpn48b", "edgenext/edgenext_xx_small", "efficientformer/efficientformer_l1:224",
    "efficientformer_v2/efficientformerv2_s0:224", "efficientnet/efficientnet_b0_gn",
    "efficientvim/efficientvim_m1", "efficientvit_mit/efficientvit_b0",
    "efficientvit_msra/efficientvit_m0:224", "eva/eva02_tiny_patch14_224:224", "fasternet/fasternet_t0",
    "fastvit/fastvit_t8", "focalnet/focalnet_tiny_srf", "gcvit/gcvit_xxtiny:224",
    "gemma4_vit/gemma4_vit_167m", "ghostnet/ghostnetv2_100", "hardcorenas/hardcorenas_a",
    "hgnet/hgnetv2_b0", "hiera/hiera_tiny_224:224", "hieradet_sam2/sam2_hiera_tiny",
    "hrnet/hrnet_w18_small", "iformer/iformer_t", "inception_next/inception_next_atto",
    "inception_resnet_v2/inception_resnet_v2:96", "inception_v3/inception_v3:96",
    "inception_v4/inception_v4:96", "lcnetv2/lcnetv2_small", "levit/levit_128s:224",
    "lowformer/lowformer_b0", "maxxvit/coatnet_pico_rw_224:224", "metaformer/caformer_s18",
    "mlp_mixer/gmixer_12_224:224", "mobilenetv3/mobilenetv3_small_050", "mobilenetv5/mobilenetv5_base",
    "mobilevit/mobilevit_xxs", "mvitv2/mvitv2_tiny:224", "naflexvit/naflexvit_base_patch16_gap",
    "nasnet/nasnetalarge:96", "nest/nest_tiny:224", "nextvit/nextvit_small", "nfnet/nf_regnet_b0",
    "pit/pit_ti_224:224", "pnasnet/pnasnet5large:96", "pvt_v2/pvt_v2_b0", "qwen3_vit/qwen3_vit_88m",
    "rdnet/rdnet_tiny", "regnet/regnetx_002", "repghost/repghostnet_050", "repvit/repvit_m0_9",
    "res2net/res2net50_14w_8s", "resnest/resnest14d", "resnet/ecaresnet26t", "resnetv2/resnetv2_18",
    "rexnet/rexnet_100", "selecsls/selecsls42", "senet/legacy_seresnext26_32x4d",
    "sequencer/sequencer2d_s:224", "shvit/shvit_s1", "sknet/skresnet18",
    "swiftformer/swiftformer_xs:224", "swin_transformer/swin_tiny_patch4_window7_224:224",
    "swin_transformer_v2/swinv2_tiny_window8_256:256", "swin_transformer_v2_cr/swinv2_cr_tiny_224:224",
    "tiny_vit/tiny_vit_5m_224", "tnt/tnt_s_patch16_224:224", "tresnet/tresnet_m",
    "twins/twins_svt_small:224", "vgg/vgg11_bn", "visformer/visformer_tiny:224",
    "vision_transformer_hybrid/vit_tiny_r_s16_p8_224:224",
    "vision_transformer_sam/samvit_base_patch16:64", "vitamin/vitamin_small_224:224",
    "volo/volo_d1_224:224", "vovnet/ese_vovnet19b_dw", "xception/legacy_xception:96",
    "xception_aligned/xception41:96", "xcit/xcit_nano_12_p16_224:224", "byoanet/halonet26t:256",
    "byoanet/lambda_resnet26t", "byobnet/mobileone_s0", "coat/coat_tiny:224",
    "crossvit/crossvit_tiny_240:240", "densenet/densenetblur121d", "dla/dla46x_c",
    "efficientnet/efficientnet_lite0", "efficientvit_mit/efficientvit_l1",
    "maxxvit/maxvit_pico_rw_256:256", "metaformer/poolformerv2_s12", "mlp_mixer/gmlp_s16_224:224",
    "mlp_mixer/mixer_s32_224:224", "mlp_mixer/resmlp_12_224:224",
    "mobilenetv3/mobilenetv4_conv_small_035",
)  # fmt: skip
"""Those that become programs through their trace: one a family first."""

OPTIONS: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": {"depth": 3},
    "deepseek_vit_412m": {"depth": 2},
    "gemma4_vit_167m": {"depth": 3},
    "naflexvit_base_patch16_gap": {"depth": 3},
    "qwen3_vit_88m": {"depth": 3},
    "samvit_base_patch16": {"depth": 3, "img_size": 64},
}
"""Depths of what is large and the same in every layer."""


def specimens() -> Iterator[Specimen]:
    """Yield one specimen an architecture; the family is timm's module."""
    for entrance, entries in (("module", MODULE), ("torchscript", TRACED)):
        for entry in entries:
            family, _, rest = entry.partition("/")
            name, _, size = rest.partition(":")
            build = partial(_build, name, int(size or SMALL))
            yield Specimen(name, f"timm/{family}", build, entrance)  # type: ignore[arg-type]


def _build(name: str, size: int) -> tuple[nn.Module, Inputs]:
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False, **OPTIONS.get(name, {}))
    return model.eval(), image(size)
