"""What is decided before any pixel is read: bands, grid, chips."""

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from geoseg.bundle import Bundle, ModelSpec
from geoseg.errors import AOIError, BandMismatchError, UsageError
from geoseg.inference import InferenceOptions, choose_bands, fit_scene, plan_inference
from geoseg.scene import Scene, close_readers, open_scene


@pytest.fixture(autouse=True)
def _closed_readers() -> object:
    yield
    close_readers()


def scene_of(folder: Path, colors: str, *, dtype: str = "uint8", gsd: float = 0.3, size: int = 60) -> Scene:
    """A scene with these bands, a letter each: r, g, b, n (infrared), a (alpha), y (gray)."""
    names = {"r": "red", "g": "green", "b": "blue", "a": "alpha", "y": "gray", "n": "undefined"}
    path = folder / f"{colors}_{dtype}_{gsd}.tif"
    pixels = np.random.default_rng(0).integers(1, 3000 if dtype == "uint16" else 255, (len(colors), size, size), dtype)
    if "a" in colors:
        pixels[colors.index("a")] = np.iinfo(dtype).max
    place = Affine(gsd, 0, 500_000, 0, -gsd, 600_000)
    profile = {"driver": "GTiff", "dtype": dtype, "count": len(colors), "height": size, "width": size}
    with rasterio.open(path, "w", crs="EPSG:32630", transform=place, **profile) as dst:
        dst.colorinterp = [ColorInterp[names[c]] for c in colors]
        dst.write(pixels)
    return open_scene(path)


def spec_of(*bands: str, **options: object) -> ModelSpec:
    """A model of these bands."""
    n = len(bands)
    return ModelSpec(name="m", network="unet", bands=bands, gsd_m=0.3, mean=(0.5,) * n, std=(0.2,) * n, **options)


RGB = spec_of("red", "green", "blue")
RGBN = spec_of("red", "green", "blue", "nir")


@pytest.mark.parametrize(
    ("colors", "spec", "asked", "expected"),
    [
        ("rgb", RGB, None, (1, 2, 3)),
        ("bgr", RGB, None, (3, 2, 1)),
        ("rgba", RGB, None, (1, 2, 3)),
        ("rgbn", RGB, None, (1, 2, 3)),
        ("ynnnn", RGB, None, (1, 2, 3)),
        ("rgbn", RGBN, None, (1, 2, 3, 4)),
        ("bgrn", RGBN, None, (3, 2, 1, 4)),
        ("nrgb", RGBN, None, (2, 3, 4, 1)),
        ("y", RGB, None, (1, 1, 1)),
        ("ya", RGB, None, (1, 1, 1)),
        ("rgbn", RGB, (4, 1, 2), (4, 1, 2)),
        ("rgbn", RGB, (4,), (4, 4, 4)),
        ("rgb", spec_of("red"), None, (1,)),
    ],
)
def test_each_band_of_the_model_gets_its_band_of_the_scene(
    tmp_path: Path, colors: str, spec: ModelSpec, asked: tuple | None, expected: tuple
) -> None:
    assert choose_bands(scene_of(tmp_path, colors), spec, asked) == expected


@pytest.mark.parametrize(
    ("colors", "spec", "asked"),
    [("yn", RGB, None), ("rgba", RGBN, None), ("rgb", RGBN, None), ("rgbn", RGB, (1, 2)), ("rgbn", RGB, (1, 2, 3, 4))],
)
def test_too_few_or_too_many_bands_are_refused_with_a_way_out(
    tmp_path: Path, colors: str, spec: ModelSpec, asked: tuple | None
) -> None:
    with pytest.raises(
        BandMismatchError, match=rf"m wants {len(spec.bands)}: red, green, blue.*`bands`, such as 1,2,3"
    ):
        choose_bands(scene_of(tmp_path, colors), spec, asked)


def test_one_band_for_all_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    choose_bands(scene_of(tmp_path, "y"), RGB, None)
    assert "One band is used as red, green, blue" in caplog.text


def test_a_band_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BandMismatchError, match="bands 1 to 3"):
        fit_scene(scene_of(tmp_path, "rgb"), RGB, bands=(1, 2, 9))


@pytest.mark.parametrize(
    ("grid", "gsd", "size"), [("model", 0.15, 30), ("model", 0.6, 120), ("scene", 0.6, 60), ("model", 0.3, 60)]
)
def test_the_working_grid_is_the_models_or_the_scenes(tmp_path: Path, grid: str, gsd: float, size: int) -> None:
    fitted = fit_scene(scene_of(tmp_path, "rgb", gsd=gsd), RGB, grid=grid)
    assert fitted.grid.shape == (size, size)
    assert fitted.grid.bounds == pytest.approx(fitted.native.bounds)


def test_a_scene_much_coarser_than_the_model_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit_scene(scene_of(tmp_path, "rgb", gsd=0.6), RGB)
    assert not caplog.text
    fit_scene(scene_of(tmp_path, "rgb", gsd=1.2), RGB)
    assert "has pixels of 1.2 m" in caplog.text


def test_16_bit_pixels_are_stretched_for_a_model_of_bytes_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = scene_of(tmp_path, "rgb", dtype="uint16")
    with caplog.at_level(logging.INFO):
        assert len(fit_scene(scene, RGB).levels) == 3
    assert "stretched to 8 bits" in caplog.text
    assert fit_scene(scene, spec_of("red", "green", "blue", pixel_max=3000.0)).levels is None


def test_8_bit_pixels_are_not_what_a_model_of_another_range_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for dtype, pixel_max, is_said in (("uint8", 255, False), ("uint8", 10000, True), ("uint16", 10000, False)):
        caplog.clear()
        fit_scene(scene_of(tmp_path, "rgb", dtype=dtype), spec_of("red", "green", "blue", pixel_max=float(pixel_max)))
        assert ("8-bit pixels, from 0 to 255; the model" in caplog.text) == is_said


@pytest.mark.parametrize(
    ("dtype", "pixel_max", "said"),
    [
        ("uint8", 255.0, "fills much of its border"),
        ("uint16", 255.0, "decides the stretch"),
        ("uint16", 65535.0, "fills much of its border"),
    ],
)
def test_a_collar_is_said_once_whatever_the_pixels_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str, pixel_max: float, said: str
) -> None:
    path = Path(scene_of(tmp_path, "rgb", dtype=dtype, size=520).paths[0])
    with rasterio.open(path, "r+") as dst:
        dst.write(np.full((3, 520, 80), np.iinfo(dtype).max, dtype), window=((0, 520), (0, 80)))
    fit_scene(open_scene(path), spec_of("red", "green", "blue", pixel_max=pixel_max))
    assert said in caplog.text
    assert caplog.text.count("`nodata=") == 1


@pytest.mark.parametrize(("chip", "halo"), [(64, 32), (64, -1), (32, 40), (100, 8)])
def test_chips_that_cannot_work_are_refused_before_any_work(tmp_path: Path, chip: int, halo: int) -> None:
    bundle = Bundle(RGB, tmp_path / "none.safetensors", "")
    scene = scene_of(tmp_path, "rgb")
    with pytest.raises(UsageError, match=f"Chips of {chip} px"):
        plan_inference(scene.source, bundle, InferenceOptions(chip_px=chip, halo_px=halo))


def test_a_halo_of_0_is_0_and_not_the_models(tmp_path: Path) -> None:
    bundle, scene = Bundle(RGB, tmp_path / "none.safetensors", ""), scene_of(tmp_path, "rgb")
    halos = [plan_inference(scene.source, bundle, InferenceOptions(halo_px=px)).lattice.halo_px for px in (None, 0)]
    assert halos == [RGB.halo_px, 0] != [0, 0]


def test_a_plan_is_made_without_reading_weights(tmp_path: Path) -> None:
    bundle = Bundle(RGB, tmp_path / "none.safetensors", "")
    plan = plan_inference(
        scene_of(tmp_path, "rgba", gsd=0.15, size=300).source, bundle, InferenceOptions(chip_px=64, halo_px=8)
    )
    assert plan.scene.grid.shape == plan.lattice.shape == (150, 150)
    assert plan.scene.bands == (1, 2, 3)
    assert plan.lattice.chip_shape <= (64, 64)
    with pytest.raises(AOIError):
        plan_inference(scene_of(tmp_path, "rgb").source, bundle, InferenceOptions(aoi=tmp_path / "gone.gpkg"))
