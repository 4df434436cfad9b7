"""`geoseg run` and `geoseg evaluate` seen through to the files, by a model whose results are known."""

import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.features import geometry_mask
from shapely import box

Run = Callable[..., tuple[int, list[str], str]]

X, Y, GSD_M = 500_000, 600_000, 0.5
HALVES = {"train": box(X, Y - 32, X + 24, Y), "test": box(X + 24, Y - 32, X + 48, Y)}


@pytest.fixture(scope="module")
def roofs(scene: Path) -> np.ndarray:
    """The pixels of the scene's third band, (y, x)."""
    with rasterio.open(scene) as src:
        return src.read(3)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The western half of the scene is for training, the eastern for testing."""
    path = tmp_path_factory.mktemp("aoi") / "halves.gpkg"
    gpd.GeoDataFrame({"split": list(HALVES)}, geometry=list(HALVES.values()), crs="EPSG:32630").to_file(path)
    return path


def mask_of(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "mask.tif") as src:
        return src.read(1)


def areas_of(folder: Path) -> list[float]:
    return sorted(gpd.read_file(folder / "buildings.gpkg", layer="buildings").area.round(6))


def test_options_of_a_run_reach_the_files(
    geoseg: Run, bright: Path, scene: Path, roofs: np.ndarray, halves: Path, tmp_path: Path
) -> None:
    options = ("--bands", "3,2,1", "--threshold", "0.95", "--min-area-m2", "0", "--outline", "raw", "--picture")
    where = ("--aoi", halves, "--aoi-where", "split = 'train'")
    code, paths, err = geoseg("run", scene, "-m", bright, *options, *where, "-q", "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert {Path(path).name for path in paths} >= {"mask.tif", "buildings.gpkg", "run.json", "preview.png"}
    assert all(Path(path).is_file() for path in paths)

    with rasterio.open(scene) as src:
        outside = geometry_mask([HALVES["train"]], src.shape, src.transform)
    expected = np.where(outside, 255, roofs == 255)  # a dim roof has a probability of 0.85
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), expected)
    assert areas_of(tmp_path / "out") == [0.25, 12 * 0.25, 600 * 0.25]


def test_the_models_own_threshold_and_smallest_footprint_hold_where_none_are_given(
    geoseg: Run, bright: Path, scene: Path, roofs: np.ndarray, tmp_path: Path
) -> None:
    geoseg("run", scene, "-m", bright, "-q", "-o", tmp_path / "out")
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), roofs[:, ::-1] > 0)  # the first band is the third's mirror
    assert areas_of(tmp_path / "out") == [200 * 0.25, 400 * 0.25, 600 * 0.25]  # from 5 m2 on


def test_JSON_instead_of_paths_names_files_and_counts(geoseg: Run, bright: Path, scene: Path, tmp_path: Path) -> None:
    command = ("run", scene, "-m", bright, "-q", "-o", tmp_path / "out")
    code, lines, err = geoseg(*command, "--json")
    found = json.loads("\n".join(lines))
    assert (code, err, found["is_new"]) == (0, "", True)
    code, paths, _ = geoseg(*command)
    assert found["files"] == paths
    assert (found["buildings"], found["area_m2"]) == (3, pytest.approx(300, abs=0.5))
    assert json.loads("\n".join(geoseg(*command, "--json")[1])) == found | {"is_new": False}


def test_the_same_command_again_does_nothing_and_another_is_refused_unless_it_may_overwrite(
    geoseg: Run, bright: Path, scene: Path, roofs: np.ndarray, tmp_path: Path
) -> None:
    command = ("run", scene, "-m", bright, "--bands", "3,2,1", "-q", "-o", tmp_path / "out")
    assert geoseg(*command)[0] == 0
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert geoseg(*command)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == stamps
    code, lines, err = geoseg(*command, "--threshold", "0.95")
    assert (code, lines) == (2, [])
    assert "--overwrite" in err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == stamps
    assert geoseg(*command, "--threshold", "0.95", "--overwrite")[0] == 0
    np.testing.assert_array_equal(mask_of(tmp_path / "out"), roofs == 255)


def test_options_of_a_score_reach_the_figures(
    geoseg: Run, bright: Path, scene: Path, roofs: np.ndarray, halves: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.tif"
    with rasterio.open(scene) as src, rasterio.open(truth, "w", **src.profile | {"count": 1}) as dst:
        labels = np.where(roofs > 0, 7, 0).astype("uint8")
        labels[25:30] = 0
        dst.write(labels[:, ::-1], 1)  # as the model sees the first band
    options = ("--code", "7=building", "--code", "0=background", "--threshold", "0.95", "--aoi", halves)
    where, out = ("--aoi-where", "split = 'train'"), tmp_path / "score"
    code, _, err = geoseg("evaluate", scene, "-l", truth, "-m", bright, *options, *where, "-o", out, "--no-pictures")
    assert code == 0, err
    found, true = roofs[:, 48:] == 255, labels[:, 48:] == 7
    total = json.loads((out / "metrics.json").read_text())["total"]
    assert total["iou"] == pytest.approx((found & true).sum() / (found | true).sum())
    assert list(out.iterdir()) == [out / "metrics.json"]


def test_blocks_that_are_lost_are_told_even_quietly(
    geoseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from geoseg.io.store import LocalStore
    from geoseg.run import BatchResult, RunResult

    lost = {"failed_blocks": [{"block": "r0_c0", "error": "no bytes"}]}
    one = RunResult(LocalStore(tmp_path / "out"), lost, is_new=False)
    many = BatchResult(done=["x/a", "x/b"], lost_blocks={"x/b": 3})
    for result, said in (
        (one, f"{tmp_path / 'out'}: 1 block could not be read and is nodata in the result; run.json lists it."),
        (many, "x/b: 3 blocks could not be read and are nodata in the result; run.json lists them."),
    ):
        caplog.clear()
        monkeypatch.setattr("geoseg.run.run_inputs", lambda *_, result=result, **__: result)
        code, _, _ = geoseg("run", "scene.tif", "-q", "--errors", "nodata")
        assert code == 0
        assert said in caplog.text
