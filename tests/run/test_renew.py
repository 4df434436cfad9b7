"""A finished result with other outlines: made anew from its probabilities, the same as by a new run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import rasterio

from geoseg.errors import ExistingResultError, OutputError, UsageError
from geoseg.inference import stored_threshold
from geoseg.io.store import LocalStore
from geoseg.run import renew


def files_of(out: Path) -> dict[str, Any]:
    """Return what a result holds: bytes, but for what stores when it was made: the GeoPackage, the report, the page."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix not in (".gpkg", ".json", ".html")}


CHANGES: list[dict[str, Any]] = [
    {"threshold": 0.3},
    {"min_area_m2": 40.0},
    {"min_area_m2": 40.0, "fill_holes_m2": 0.0},
    {"outline": "simple"},
    {"tolerance_m": 2.0},
    {"split_depth": 1.0},
    {"threshold": 0.3, "outline": "raw", "picture": True, "formats": ("gpkg", "fgb", "geojson")},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(changes))
def test_a_renewed_result_is_that_of_a_new_run_and_no_block_is_computed(
    place: Any, blocks: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    place.run(tmp_path / "fresh", **changes)
    place.run(tmp_path / "out")
    before = files_of(tmp_path / "out")
    blocks.take()
    place.run(tmp_path / "out", overwrite=True, **changes)
    assert blocks.take() == []
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh") != before
    renewed, fresh = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("out", "fresh"))
    for name in ("facts", "key", "threshold", "min_area_m2", "fill_holes_m2", "split_depth", "area_m2"):
        assert renewed[name] == fresh[name]
    assert renewed["counts"] == fresh["counts"]
    assert renewed["renewed"]["seconds"].keys() >= {"mask", "polygons"}
    assert not place.run(tmp_path / "out", **changes).is_new  # it is the result of that run now


def test_the_report_of_before_is_enough(place: Any, tmp_path: Path) -> None:
    """Then there is no STAC Item, which needs the transform of the grid."""
    out = tmp_path / "out"
    place.run(out)
    report = json.loads((out / "run.json").read_text())
    del report["scene"]["grid"]["transform"]
    (out / "run.json").write_text(json.dumps(report))
    (out / "item.json").unlink()
    place.run(out, formats=("gpkg", "fgb"))
    assert (out / "buildings.fgb").exists()
    place.run(out, overwrite=True, threshold=0.3)
    assert not (out / "item.json").exists()


def test_without_overwrite_it_is_refused_and_says_that_no_network_is_needed(place: Any, tmp_path: Path) -> None:
    place.run(tmp_path / "out")
    with pytest.raises(ExistingResultError, match=r"`threshold`.*`overwrite=True`, which makes the buildings anew"):
        place.run(tmp_path / "out", threshold=0.3)
    with pytest.raises(ExistingResultError, match=r"`overwrite=True`\.$"):
        place.run(tmp_path / "out", threshold=0.3, model="1")


@pytest.mark.parametrize("changes", [{"threshold": 0.3, "model": "1"}, {}], ids=["another model", "nothing"])
def test_what_else_differs_is_computed_again(place: Any, blocks: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    place.run(tmp_path / "out")
    blocks.take()
    place.run(tmp_path / "out", overwrite=True, **changes)
    assert len(blocks.take()) > 0


def test_the_result_of_another_version_is_computed_again(place: Any, blocks: Any, tmp_path: Path) -> None:
    place.run(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(json.dumps(report | {"geoseg": "0.0.1"}))
    blocks.take()
    place.run(tmp_path / "out", overwrite=True, threshold=0.3)
    assert len(blocks.take()) > 0


def test_what_fails_leaves_the_old_result(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run(tmp_path / "out")
    before, report = files_of(tmp_path / "out"), (tmp_path / "out" / "run.json").read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OutputError("No space left on device")

    monkeypatch.setattr(renew, "write_footprints", fail)
    with pytest.raises(OutputError, match="No space"):
        place.run(tmp_path / "out", overwrite=True, threshold=0.3)
    assert files_of(tmp_path / "out") == before
    assert (tmp_path / "out" / "run.json").read_bytes() == report
    assert not (tmp_path / "out" / ".geoseg").exists()


def test_holes_that_could_hold_a_building_are_refused_before_any_work(place: Any, blocks: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`fill_holes_m2=9` is above `min_area_m2=4`"):
        place.run(tmp_path / "out", fill_holes_m2=9.0, min_area_m2=4.0)
    assert blocks.take() == []
    assert not (tmp_path / "out").exists()


def test_the_mask_is_where_the_probability_reaches_the_threshold(place: Any, tmp_path: Path) -> None:
    place.run(tmp_path / "out")
    place.run(tmp_path / "out", overwrite=True, threshold=0.3)
    with rasterio.open(tmp_path / "out" / "probability.tif") as src:
        probability = src.read(1)
    with rasterio.open(tmp_path / "out" / "mask.tif") as src:
        mask = src.read(1)
    assert ((mask == 1) == ((probability >= stored_threshold(0.3)) & (probability != 255))).all()


def test_killed_while_its_files_are_replaced_it_is_made_anew_again_without_the_network(
    place: Any, blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    place.run(tmp_path / "fresh", threshold=0.3)
    place.run(tmp_path / "old")
    uploaded = LocalStore.upload
    for uploads in (0, 2, 5):
        out, left = tmp_path / f"out{uploads}", [uploads]
        shutil.copytree(tmp_path / "old", out)

        def upload(self: LocalStore, path: Path, name: str, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            uploaded(self, path, name)

        with monkeypatch.context() as killed:
            killed.setattr(LocalStore, "upload", upload)
            with pytest.raises(Killed):
                place.run(out, threshold=0.3, overwrite=True)
        assert not (out / "run.json").exists()
        with pytest.raises(ExistingResultError, match=r"being made anew when geoseg was stopped.*`overwrite=True`"):
            place.run(out, threshold=0.3)
        blocks.take()
        place.run(out, threshold=0.3, overwrite=True)
        assert blocks.take() == []
        assert files_of(out) == files_of(tmp_path / "fresh")
        assert not (out / ".geoseg").exists()
