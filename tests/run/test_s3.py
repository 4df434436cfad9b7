"""Runs in a bucket: the same bytes as on a disk, through a connection that fails and recovers, and gone on from."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from geoseg.errors import BusyError, ExistingResultError, OutputError
from geoseg.io.store import open_store
from geoseg.run.ledger import PLAN
from geoseg.run.report import FINISHED, STOPPED, read_status
from geoseg.sources.files import RUN_FOLDER

BLOCK_PX = 100
BLOCKS = 12


@dataclass
class Line:
    """The connection to the bucket; see bucket.py."""

    address: str

    def fail(self, *, busy: int = 0, cut: int = 0, only: str = "") -> int:
        """Let every n-th request fail from now on; return how many have failed before."""
        query = urlencode({"busy": busy, "cut": cut, "only": only})
        with urllib.request.urlopen(f"http://{self.address}/_line?{query}") as answer:
            return int(answer.read())


@pytest.fixture(scope="module")
def _line() -> Iterator[Line]:
    boto3 = pytest.importorskip("boto3")
    command = [sys.executable, str(Path(__file__).with_name("bucket.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_S3_ENDPOINT": address,
                "AWS_HTTPS": "NO",
                "AWS_VIRTUAL_HOSTING": "FALSE",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            }.items():
                patch.setenv(name, value)
            patch.delenv("AWS_PROFILE", raising=False)
            boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="runs")
            yield Line(address)
        server.stdin.close()


@pytest.fixture
def line(_line: Line) -> Iterator[Line]:
    """The connection to a bucket `runs`, whole again after the test."""
    yield _line
    _line.fail()


@pytest.fixture
def bucket(line: Line, tmp_path: Path) -> str:
    return f"s3://runs/{tmp_path.name}"


def test_formats_and_the_picture_are_added_to_a_result_in_a_bucket(
    place: Any, blocks: Any, bucket: str, tmp_path: Path
) -> None:
    place.run(bucket)
    blocks.take()
    for _ in range(2):
        assert not place.run(bucket, formats=("gpkg", "fgb", "geojson"), picture=True).is_new
    assert blocks.take() == []
    place.run(tmp_path / "out", formats=("gpkg", "fgb", "geojson"), picture=True)
    store = open_store(bucket)
    for name in ("buildings.fgb", "buildings.geojson", "preview.png"):
        assert store.read(name) == (tmp_path / "out" / name).read_bytes()
    files = [json.loads(folder.read("run.json"))["files"] for folder in (store, open_store(tmp_path / "out"))]
    for one in files:
        del one["buildings.gpkg"], one["index.html"], one["item.json"]  # say when they were written
    files[1].pop("project.qgz")  # of local results alone
    assert files[0] == files[1]


@pytest.fixture
def assert_same(place: Any, tmp_path: Path) -> Callable[[str], None]:
    """Assert that a result in a bucket is the one that a disk gets."""

    def check(url: str) -> None:
        store, folder = open_store(url), tmp_path / "fetched"
        folder.mkdir(exist_ok=True)
        assert not [name for name in store.names("") if name.startswith(RUN_FOLDER)]
        for name in store.names(""):
            (folder / name).write_bytes(store.read(name))
        place.assert_same(folder)

    return check


def stop_at(blocks: Any, count: int) -> None:
    """Let the disk be gone before the n-th block."""

    def fail(_: str) -> None:
        if len(blocks.begun) >= count:
            raise OutputError("the disk is gone")

    blocks.before = fail


def test_a_result_in_a_bucket_is_that_on_a_disk(place: Any, bucket: str, assert_same: Callable[[str], None]) -> None:
    result = place.run(f"{bucket}/out", block_px=BLOCK_PX)
    assert result.paths[0] == f"{bucket}/out/probability.tif"
    assert_same(f"{bucket}/out")
    assert not place.run(f"{bucket}/out").is_new
    assert read_status(f"{bucket}/out")[0].state == FINISHED


def test_a_run_in_a_bucket_goes_on_and_tells_how_far_it_is(
    place: Any, blocks: Any, bucket: str, until: Callable[..., None], assert_same: Callable[[str], None]
) -> None:
    out = f"{bucket}/out"
    stop_at(blocks, 6)
    with pytest.raises(OutputError):
        place.run(out, block_px=BLOCK_PX)
    until(place.is_idle)
    blocks.before = lambda _: None
    blocks.take()
    (found,) = read_status(out)
    assert (found.state, found.blocks) == (STOPPED, BLOCKS)
    assert 0 < found.done < BLOCKS
    with pytest.raises(ExistingResultError, match=r"`threshold`: the model's before, 0\.3 now"):
        place.run(out, threshold=0.3)
    place.run(out)
    assert len(blocks.take()) == BLOCKS - found.done
    assert_same(out)


def test_a_second_client_on_a_bucket_is_refused(place: Any, blocks: Any, bucket: str) -> None:
    refused: list[str] = []

    def come() -> None:
        with pytest.raises(BusyError) as caught:
            place.run(f"{bucket}/out")
        refused.append(str(caught.value))

    blocks.once(come)
    place.run(f"{bucket}/out", block_px=BLOCK_PX)
    assert "Another client is working on" in refused[0]


@pytest.mark.parametrize(("busy", "cut"), [(5, 0), (0, 7)], ids=["busy", "cut"])
def test_a_bucket_that_fails_and_recovers_changes_no_byte(
    place: Any, blocks: Any, bucket: str, line: Line, assert_same: Callable[[str], None], busy: int, cut: int
) -> None:
    line.fail(busy=busy, cut=cut)
    place.run(f"{bucket}/out", block_px=BLOCK_PX)
    assert line.fail() > 5
    assert len(blocks.take()) == BLOCKS
    assert_same(f"{bucket}/out")


@pytest.mark.parametrize(("busy", "cut"), [(0, 0), (3, 0), (0, 5)], ids=["whole", "busy", "cut"])
def test_a_scene_in_a_bucket_whose_reads_fail_and_recover_changes_no_byte(
    place: Any, bucket: str, line: Line, tmp_path: Path, busy: int, cut: int
) -> None:
    from geoseg.scene import close_readers

    open_store(bucket).write("scene.tif", place.scene.read_bytes())
    plan = place.plan(f"{bucket}/scene.tif")
    line.fail(busy=busy, cut=cut, only="scene.tif")
    close_readers()
    place.run(tmp_path / "out", plan=plan, block_px=BLOCK_PX)
    assert bool(line.fail()) == bool(busy or cut)
    place.assert_same(tmp_path / "out")


def test_a_bucket_that_cannot_be_had_is_not_taken_for_an_empty_one(
    place: Any, blocks: Any, bucket: str, line: Line, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run would begin again over what is done."""
    from geoseg.errors import ReadError
    from geoseg.io import store

    out = f"{bucket}/out"
    stop_at(blocks, 6)
    with pytest.raises(OutputError):
        place.run(out, block_px=BLOCK_PX)
    until(place.is_idle)
    blocks.before = lambda _: None
    plan = open_store(out).read(f"{RUN_FOLDER}/{PLAN}")
    monkeypatch.setattr(store, "S3_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_REGION", "us-west-1")  # so that the client is made anew
    line.fail(busy=1, only="plan.json")
    with pytest.raises(ReadError, match=r"plan\.json cannot be read"):
        place.run(out, block_px=BLOCK_PX)
    line.fail()
    assert open_store(out).read(f"{RUN_FOLDER}/{PLAN}") == plan
