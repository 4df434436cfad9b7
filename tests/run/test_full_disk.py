"""A disk that is really full, before, while and after the blocks: told with the place, and gone on from."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import OutputError
from geoseg.run import results

BLOCK_PX = 64
ENOUGH = 1_000_000
"""Bytes that the results take, and more."""


class Disk:
    """A file system of its own, as large as it is told to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, free: int) -> None:
        """Leave so many bytes free."""
        stat = os.statvfs(self.folder)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        subprocess.run(["mount", "-o", f"remount,size={used + free}", self.folder], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small file system in memory; making one takes root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no file system can be mounted here, as root can: {err}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def _unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a run on a disk that will not do, as when others fill it meanwhile."""
    monkeypatch.setattr("geoseg.run.session.check_room", lambda *_: None)


def test_a_small_disk_is_refused_before_any_work(place: Any, blocks: Any, disk: Disk) -> None:
    disk.resize(100_000)
    with pytest.raises(OutputError, match=r"disk has 0 MB free; about 0 MB are needed"):
        place.run(disk.folder / "out")
    assert list(disk.folder.iterdir()) == []
    assert blocks.take() == []


@pytest.mark.usefixtures("_unasked")
def test_a_disk_that_fills_with_parts_is_told_and_after_making_room_the_run_goes_on(
    place: Any, blocks: Any, disk: Disk, until: Any
) -> None:
    out = disk.folder / "out"
    disk.resize(70_000)
    with pytest.raises(OutputError, match=rf"{disk.folder}.*No space left on device.*Make room.*same command again"):
        place.run(out, block_px=BLOCK_PX)
    until(place.is_idle)
    done = {path.stem for path in out.glob(".geoseg/*/parts/r*.npz")}
    assert 0 < len(done) < len(place.names(BLOCK_PX))
    assert not list(out.glob("**/.aside-*"))
    blocks.take()
    disk.resize(64_000_000)
    place.run(out)
    assert sorted(blocks.take()) == sorted(set(place.names(BLOCK_PX)) - done)
    place.assert_same(out)


@pytest.mark.usefixtures("_unasked")
@pytest.mark.parametrize("free", [0, 60_000, 150_000, 230_000, 2_000_000])
def test_a_disk_that_fills_with_results_is_told_and_no_block_is_done_again(
    place: Any, blocks: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    """The less is free, the earlier: rasters, GeoPackage, GeoParquet, report."""
    out, write_rasters = disk.folder / "out", results.write_rasters

    def write_on_a_full_disk(*args: Any) -> Any:
        monkeypatch.setattr(results, "write_rasters", write_rasters)
        disk.resize(free)
        return write_rasters(*args)

    monkeypatch.setattr(results, "write_rasters", write_on_a_full_disk)
    with pytest.raises(OutputError, match=str(disk.folder)) if free < ENOUGH else nullcontext():
        place.run(out, block_px=BLOCK_PX)
    if free < ENOUGH:
        assert [path.name for path in out.iterdir()] == [".geoseg"]
        assert not list(out.glob(".geoseg/ready-*"))
        disk.resize(64_000_000)
        blocks.take()
        place.run(out)
        assert blocks.take() == []
    place.assert_same(out)
