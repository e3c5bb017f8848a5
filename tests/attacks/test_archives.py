"""Zip bombs and lying headers are refused before any loader sees them."""

from __future__ import annotations

import io
import json
import struct
import zipfile

from tests.attacks.conftest import Attack


def test_a_zip_bomb_is_refused_unopened(attack: Attack) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/code/__torch__.py", b"\0" * (256 << 20))
        archive.writestr("m/data.pkl", b"x")
    assert len(buffer.getvalue()) < 1 << 20
    assert attack.fails(buffer.getvalue(), "x:1")["type"] == "archive-too-large"


def test_an_archive_of_very_many_entries_is_refused(attack: Attack) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number in range(200_001):
            archive.writestr(f"m/code/{number}", b"")
    assert attack.fails(buffer.getvalue(), "x:1")["type"] == "archive-too-large"


def test_an_archive_of_thousands_of_nested_folders_is_refused(attack: Attack) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("m/archive_format", b"pt2")
        archive.writestr("m/models/model.json", b"{}")
        archive.writestr("m/" + "a/" * 3000 + "x", b"x")
    assert attack.fails(buffer.getvalue(), "x:1")["type"] == "archive-too-deep"
    left = [path.name for path in (attack.service.data_dir / "scratch").iterdir()]
    assert not [name for name in left if name.startswith(("job-", "gone-"))]


def test_an_archive_that_lies_about_sizes_ends_cleanly(attack: Attack) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/code/__torch__.py", b"\0" * (64 << 20))
        archive.writestr("m/data.pkl", b"x")
        archive.writestr("m/version", b"3")
    content = bytearray(buffer.getvalue())
    true, lie = struct.pack("<I", 64 << 20), struct.pack("<I", 100)
    while (position := content.find(true)) >= 0:
        content[position : position + 4] = lie
    attack.fails(bytes(content), "x:1")


def test_entries_that_climb_out_are_written_nowhere(attack: Attack) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("../../../../tmp/torchpruner-attack/code/x.py", b"pass")
        archive.writestr("m/code/__torch__.py", b"class M: pass")
        archive.writestr("m/data.pkl", b"\x80\x02N.")
    attack.fails(buffer.getvalue(), "x:1")


def test_safetensors_with_a_lying_header_is_no_model(attack: Attack) -> None:
    for length in (2**63, 10**9, 40):
        header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
        content = struct.pack("<Q", length) + header.encode() + b"\0" * 100
        assert attack.fails(content, "x:1")["type"] == "invalid-model"
