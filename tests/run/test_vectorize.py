"""Footprints of any raster: how its pixels are taken, and the same polygons as from an array or a run."""

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from PIL import Image

from geoseg import VectorizeSettings, polygonize, vectorize_raster
from geoseg.errors import ExistingResultError, MissingFileError, UsageError
from geoseg.run import results

PLACE = Affine(0.3, 0, 500_000, 0, -0.3, 600_000)


def roofs(shape: tuple[int, int] = (150, 130)) -> np.ndarray:
    """Return `(y, x)` probabilities of slanted roofs side by side."""
    rows, cols = np.indices(shape)
    walls = ((rows - 0.3 * cols) % 23 > 3) & ((cols + 0.3 * rows) % 31 > 4)
    return np.where(walls, 0.7 + 0.29 * np.random.default_rng(0).random(shape), 0.08)


def write(path: Path, pixels: np.ndarray, *, crs: str | None = "EPSG:32630", **profile: Any) -> Path:
    layout = {"driver": "GTiff", "count": 1, "crs": crs, "transform": PLACE, "dtype": pixels.dtype} | profile
    with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **layout) as dst:
        dst.write(pixels, 1)
    return path


def read(out: Path | str) -> geopandas.GeoDataFrame:
    return geopandas.read_parquet(Path(out) / "buildings.parquet")


def assert_same(found: geopandas.GeoDataFrame, expected: geopandas.GeoDataFrame) -> None:
    """Assert that footprints are the same, in any order."""
    one, two = (frame.sort_values("id", ignore_index=True) for frame in (found, expected))
    assert_geodataframe_equal(one, two, check_dtype=False, check_like=True)


@pytest.mark.parametrize("window_px", [32, 1024])
def test_probabilities_give_the_footprints_of_the_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_px: int
) -> None:
    monkeypatch.setattr(results, "WINDOW_PX", window_px)
    probability = roofs().astype(np.float32)
    probability[40:50, 60:70] = np.nan
    path = write(tmp_path / "p.tif", probability)
    result = vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", min_area_m2=1.0))
    expected = polygonize(probability, transform=PLACE, crs=32630, min_area_m2=1.0)
    assert len(expected) > 20
    assert_same(read(tmp_path / "out"), expected)
    assert result.report["counts"]["buildings"] == len(expected)
    assert [Path(path).name for path in result.paths] == ["buildings.gpkg", "buildings.parquet", "vectorize.json"]
    assert json.loads((tmp_path / "out" / "vectorize.json").read_text())["taken_as"] == "probabilities from 0 to 1"
    assert {path.name for path in tmp_path.iterdir()} == {"p.tif", "out"}


INSIDE = roofs() > 0.5
WAYS: dict[str, tuple[np.ndarray, dict[str, Any], dict[str, Any], str]] = {
    "0 and 1": (INSIDE.astype(np.uint8), {}, {}, "pixels of 1"),
    "0 and 255": (INSIDE.astype(np.uint8) * 255, {}, {}, "pixels of 255"),
    "16 bits": (INSIDE.astype(np.int16), {"nodata": -1}, {}, "pixels of 1"),
    "classes": (np.where(INSIDE, 3, 1).astype(np.uint8), {}, {"values": (3,)}, "the pixels of 3"),
    "two classes": (
        np.where(INSIDE, np.indices(INSIDE.shape)[1] % 2 + 2, 1).astype(np.uint8),
        {},
        {"values": (2, 3)},
        "2, 3",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_masks_and_classes_give_the_footprints_of_the_mask(tmp_path: Path, way: str) -> None:
    pixels, profile, settings, taken = WAYS[way]
    path = write(tmp_path / "m.tif", pixels, **profile)
    result = vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", **settings))
    assert taken in result.report["taken_as"]
    expected = polygonize(INSIDE, transform=PLACE, crs=32630)
    assert_same(read(tmp_path / "out"), expected)
    assert "confidence" not in read(tmp_path / "out")


def test_undeclared_nodata_of_a_mask_is_told_and_cuts_buildings_off(tmp_path: Path) -> None:
    mask = INSIDE.astype(np.uint8)
    mask[:, 60:] = 255
    result = vectorize_raster(write(tmp_path / "m.tif", mask), VectorizeSettings(out=tmp_path / "out", outline="raw"))
    assert "255 is no data" in result.report["taken_as"]
    found = read(tmp_path / "out")
    assert found.total_bounds[2] == pytest.approx(500_000 + 0.3 * 60)
    assert found["edge"].any()


@pytest.mark.parametrize("one", [100, 255, 10_000])
def test_whole_numbers_are_probabilities_of_the_given_scale(tmp_path: Path, one: int) -> None:
    pixels = np.rint(roofs() * one).astype(np.uint16)
    path = write(tmp_path / "p.tif", pixels)
    with pytest.raises(UsageError, match=r"more than 16 values as uint16.*`full_scale`.*`values`"):
        vectorize_raster(path, VectorizeSettings(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", full_scale=one))
    expected = polygonize(pixels / one, transform=PLACE, crs=32630)
    assert_same(read(tmp_path / "out"), expected)


def test_a_scale_in_the_file_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tif", np.rint(roofs() * 200).astype(np.uint8))
    with rasterio.open(path, "r+") as dst:
        dst.scales = (1 / 200,)
    result = vectorize_raster(path, VectorizeSettings(out=tmp_path / "out"))
    assert result.report["taken_as"] == "probabilities of scale 0.005"
    assert len(read(tmp_path / "out")) == len(polygonize(roofs()))


def test_another_band(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    layout = {"driver": "GTiff", "dtype": "float32", "crs": "EPSG:32630", "transform": PLACE, "count": 2}
    with rasterio.open(path, "w", height=150, width=130, **layout) as dst:
        dst.write(roofs().astype(np.float32), 2)
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "one"))
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "two", band=2))
    assert (len(read(tmp_path / "one")), len(read(tmp_path / "two"))) == (0, len(polygonize(roofs())))
    with pytest.raises(UsageError, match=r"has 2 bands; there is no `band=3`"):
        vectorize_raster(path, VectorizeSettings(out=tmp_path / "three", band=3))


def test_what_is_no_probability_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "percent.tif", (roofs() * 100).astype(np.float32))
    with pytest.raises(UsageError, match=r"percent\.tif holds values from 8 to [\d.]+, which are not probabilities"):
        vectorize_raster(path, VectorizeSettings(out=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["percent.tif"]
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", full_scale=100))


def test_a_raster_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no raster")
    for name in ("text.tif", "missing.tif"):
        with pytest.raises(MissingFileError, match=f"{name} cannot be read"):
            vectorize_raster(tmp_path / name, VectorizeSettings(out=tmp_path / "out"))
    with pytest.raises(MissingFileError, match=r"without run\.json and probability\.tif"):
        vectorize_raster(tmp_path, VectorizeSettings(out=tmp_path / "out"))


def test_an_older_result_is_kept_unless_overwrite(tmp_path: Path) -> None:
    path, out = write(tmp_path / "m.tif", INSIDE.astype(np.uint8)), tmp_path / "out"
    vectorize_raster(path, VectorizeSettings(out=out, formats=("fgb", "geojson")))
    with pytest.raises(ExistingResultError, match=r"already holds buildings\.parquet, .*`overwrite=True`"):
        vectorize_raster(path, VectorizeSettings(out=out, outline="raw"))
    assert read(out)["outline"].iloc[0] == "regular"
    vectorize_raster(path, VectorizeSettings(out=out, outline="raw", overwrite=True))
    assert set(read(out)["outline"]) == {"raw"}
    assert not (out / "buildings.fgb").exists()  # of the older result
    assert not (out / "buildings.geojson").exists()


def test_without_a_crs_sizes_are_those_of_the_coordinates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 5:25] = 1
    path = write(tmp_path / "m.tif", mask, crs=None)
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "plain", outline="raw"))
    assert read(tmp_path / "plain")["area_m2"].tolist() == pytest.approx([200 * 0.09])
    assert "has no CRS" in caplog.text
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "placed", outline="raw", crs="EPSG:32630"))
    assert read(tmp_path / "placed").crs.to_epsg() == 32630


def test_a_crs_or_threshold_without_effect_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tif", INSIDE.astype(np.uint8))
    with pytest.raises(UsageError, match="`crs` would have no effect"):
        vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", crs="EPSG:2056"))
    with pytest.raises(UsageError, match="`threshold` would have no effect"):
        vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", threshold=0.4))
    with pytest.raises(UsageError, match="Give one of them"):
        VectorizeSettings(values=(1,), full_scale=100)


def test_a_finished_run_is_outlined_again_beside_it(place: Any, tmp_path: Path) -> None:
    place.run(tmp_path / "run")
    place.run(tmp_path / "simple", outline="simple", threshold=0.3)
    vectorize_raster(tmp_path / "run", VectorizeSettings(out=tmp_path / "same"))
    vectorize_raster(tmp_path / "run", VectorizeSettings(out=tmp_path / "other", outline="simple", threshold=0.3))
    for made, expected in (("same", "run"), ("other", "simple")):
        assert_geodataframe_equal(read(tmp_path / made), read(tmp_path / expected))
    with pytest.raises(ExistingResultError, match="holds the result of a run"):
        vectorize_raster(tmp_path / "run", VectorizeSettings(out=tmp_path / "run", overwrite=True))
    with pytest.raises(UsageError, match="`full_scale` would have no effect"):
        vectorize_raster(tmp_path / "run", VectorizeSettings(out=tmp_path / "no", full_scale=100))


def test_polygons_of_a_picture_lie_on_it_as_GIS_programs_show_it(tmp_path: Path) -> None:
    """Row 10 lies at y = -10, and the raster that geoseg writes says so as well."""
    mask = np.zeros((60, 90), np.uint8)
    mask[10:30, 5:45] = 1
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    vectorize_raster(path, VectorizeSettings(out=tmp_path / "out", outline="raw"))
    for frame in (read(tmp_path / "out"), geopandas.read_file(tmp_path / "out" / "buildings.gpkg", layer="buildings")):
        assert frame.total_bounds.tolist() == [5, -30, 45, -10]
        assert frame.orientation_deg.tolist() == [90]
