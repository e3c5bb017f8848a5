"""Where downloads go: two to one name, names that are no ordinary files."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from tests.client.test_retries import QUICK
from tests.service.models import small_file
from tests.service.running import RunningService
from torchpruner_client import Client, DownloadDamaged, DownloadTargetError
from torchpruner_client.connection_settings import ConnectionSettings
from torchpruner_client.download_target import opened, part_of, put_in_place


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_each_download_has_a_part_file_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    parts = [part_of(target) for _ in range(2)]
    with opened(parts[0]) as first, opened(parts[1]) as second:
        first.write(b"first")
        second.write(b"second")
    put_in_place(parts[0], target, digest(b"first"))
    assert target.read_bytes() == b"first"
    put_in_place(parts[1], target, digest(b"second"))
    assert target.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_something_else_wrote_over_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, part = tmp_path / "model.onnx", tmp_path / "part"
    part.write_bytes(b"mine")
    rename = Path.replace

    def replaced_at_once(self: Path, other: Path) -> Path:
        renamed = rename(self, other)
        target.write_bytes(b"another's")
        return renamed

    monkeypatch.setattr(Path, "replace", replaced_at_once)
    with pytest.raises(DownloadDamaged, match="written by something else"):
        put_in_place(part, target, digest(b"mine"))


def test_downloads_to_one_name_end_in_one_whole_file(
    service: RunningService, tmp_path: Path
) -> None:
    target = tmp_path / "pruned.safetensors"
    failures: list[Exception] = []
    with Client(service.url, progress=False) as client:
        remotes = [
            client.model(service.upload(small_file(seed, 64).content, "x:1x3x8x8")["id"])
            for seed in (1801, 1802)
        ]
        wanted = []
        for number, remote in enumerate(remotes):
            alone = remote.download_pruned(None, tmp_path / f"{number}.safetensors")
            wanted.append(alone.read_bytes())

        def download(number: int) -> None:
            try:
                remotes[number % 2].download_pruned(None, target)
            except DownloadDamaged as error:
                failures.append(error)

        threads = [threading.Thread(target=download, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert target.read_bytes() in wanted
    assert len(failures) < len(threads)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_special_files_are_refused_and_stay(
    service: RunningService, model_id: str, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "special"
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/null")
    with (
        Client(service.url, progress=False) as client,
        pytest.raises(DownloadTargetError, match="no ordinary file"),
    ):
        client.model(model_id).download_pruned(None, target)
    assert not target.is_file() and list(tmp_path.iterdir()) == [target]


def test_what_a_link_points_to_is_written(
    service: RunningService, model_id: str, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = tmp_path / "latest.safetensors"
    link.symlink_to(folder / "real.safetensors")
    with Client(service.url, progress=False) as client:
        assert client.model(model_id).download_pruned(None, link) == link
    assert link.is_symlink() and (folder / "real.safetensors").stat().st_size > 0


@pytest.mark.parametrize("inside", ["\n", "\r\nX-Evil: 1\r\n", "é", "\x00", " "])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(inside: str) -> None:
    secret = "tp_abcdefghijkl_" + "s" * 20
    with pytest.raises(ValueError, match=r"character 37 of") as caught:
        Client("http://127.0.0.1:9", api_key=f"{secret}{inside}tail", retries=QUICK)
    assert secret not in str(caught.value) and "ssss" not in repr(caught.value)


def test_blanks_around_a_key_are_not_part_of_it() -> None:
    settings = ConnectionSettings.of(None, " tp_x_y\n", None, None)
    assert settings.headers()["Authorization"] == "Bearer tp_x_y"
    assert "tp_x_y" not in repr(settings)
