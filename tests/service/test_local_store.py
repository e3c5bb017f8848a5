"""The local object store: under a name nobody guesses, and its troubles by their names."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchpruner_service.problems import StorageFull, Unavailable
from torchpruner_service.sandbox.disk_use import disk_used
from torchpruner_service.storage.garbage import sweep_scratch
from torchpruner_service.storage.objects import Objects
from torchpruner_service.storage.tree_removal import remove_tree


def test_every_process_finds_the_same_folder(tmp_path: Path) -> None:
    stores: list[Objects] = []
    threads = [
        threading.Thread(target=lambda: stores.append(Objects(tmp_path.as_uri())))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.local_root for store in stores}) == 1
    stores[0].put("blobs/ab/x", b"1")
    assert stores[-1].get("blobs/ab/x") == b"1"
    assert not (tmp_path / "blobs").exists()


def test_what_an_older_version_left_is_found(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "x").write_bytes(b"old")
    assert Objects(tmp_path.as_uri()).get("blobs/ab/x") == b"old"
    # An older process that still runs writes where it always did.
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "y").write_bytes(b"late")
    again = Objects(tmp_path.as_uri())
    assert (again.get("blobs/ab/x"), again.get("blobs/ab/y")) == (b"old", b"late")


@pytest.fixture
def no_inodes(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m,nr_inodes=24", "tmpfs", str(disk)]
    if subprocess.run(["mount", *options]).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_without_inodes_is_named(no_inodes: Path) -> None:
    objects = Objects(no_inodes.as_uri())
    with pytest.raises(StorageFull, match="has no inodes left") as caught:
        for number in range(100):
            objects.put(f"blobs/{number}", b"x")
    assert caught.value.fields["reason"] == "no-inodes"
    with pytest.raises(StorageFull, match="inodes"):
        objects.check()


def test_a_store_that_is_read_only_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    objects = Objects(tmp_path.as_uri())
    objects.put("blobs/x", b"x")
    if subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)]).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path)], check=True)
        with pytest.raises(Unavailable, match="read-only"):
            objects.put("blobs/y", b"y")
        assert objects.get("blobs/x") == b"x"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def nest(folder: Path, depth: int) -> None:
    """Folders in each other, deeper than any path can say."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("deepest", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def test_thousands_of_nested_folders_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    nest(folder, 2200)
    (folder / "link").symlink_to("/etc")
    (folder / "closed").mkdir(mode=0)
    remove_tree(folder)
    assert not list(tmp_path.iterdir()) and Path("/etc/passwd").exists()


def test_a_nest_of_folders_stops_no_tidying(tmp_path: Path) -> None:
    for name in ("job-a", "job-b"):
        folder = tmp_path / name
        folder.mkdir()
        nest(folder, 1200)
        os.utime(folder, (1, 1))
    assert sweep_scratch(tmp_path, 3600) == 2
    assert not list(tmp_path.iterdir())


def test_disk_is_counted_however_it_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(bytes(100_000))
    assert 100_000 <= disk_used(tmp_path, 1 << 30) < 200_000
    for number in range(100):
        (tmp_path / f"empty{number}").touch()
    assert disk_used(tmp_path, 1 << 30) > 400_000
    nest(tmp_path, 2200)
    # Too deep to be looked into: that is too much.
    assert disk_used(tmp_path, 1 << 30) > 1 << 30
    remove_tree(tmp_path / "d")
