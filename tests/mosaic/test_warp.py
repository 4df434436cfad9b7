"""One scene on another grid: in its place, window by window the same, and as GDAL sees it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geoseg.errors import SceneMismatchError
from geoseg.grid import Grid, Window
from geoseg.mosaic import Warped, choose_grid, crop_grid, place
from geoseg.mosaic.warp import STEP_PX
from geoseg.scene import Scene

UTM = CRS.from_epsg(32630)
PLANES = ("EPSG:32630", "EPSG:32631", "EPSG:3857", "EPSG:4326", "EPSG:2136")
OTHERS = [(crs, 0.0) for crs in PLANES] + [("EPSG:32630", 20.0), ("EPSG:32631", -45.0)]

WriteScene = Callable[..., Scene]
Smooth = Callable[..., np.ndarray]


def warped(scene: Scene, *, crs: CRS = UTM, gsd_m: float = 0.3) -> Warped:
    """A scene on its own mosaic's grid."""
    found = place(scene, choose_grid([scene], crs=crs, gsd_m=gsd_m))
    assert found is not None
    return found


def whole(part: Warped) -> tuple[np.ndarray, np.ndarray]:
    """Values and mask of everything that a scene covers."""
    pixels = part.read(part.window)
    return pixels.values, pixels.valid


def gdal(part: Warped, pixels: np.ndarray, how: Resampling) -> np.ndarray:
    """What GDAL makes of the same pixels on the same grid, with exact places and the four nearest pixels."""
    source, target = part.scene.native, part.grid.crop(part.window)
    out = np.zeros((len(pixels), *target.shape), pixels.dtype)
    places = {"src_transform": source.transform, "src_crs": source.crs}
    return reproject(
        pixels,
        out,
        **places,
        dst_transform=target.transform,
        dst_crs=target.crs,
        resampling=how,
        tolerance=0,
        XSCALE=1,
        YSCALE=1,
    )[0]


@pytest.mark.parametrize(("crs", "turn"), OTHERS)
def test_pixels_are_those_of_GDAL_to_one_gray_level(
    write_scene: WriteScene, smooth: Smooth, crs: str, turn: float
) -> None:
    pixels = smooth(310, 290)
    part = warped(write_scene(pixels, crs, turn=turn, shift=(0.37, 0.81)))
    assert part.shift is None
    values, valid = whole(part)
    theirs = gdal(part, np.ones((1, 310, 290), np.uint8), Resampling.nearest)[0] > 0
    assert valid.sum() > 250 * 250
    assert not (theirs & ~valid).any()
    assert (valid & ~theirs).sum() < 12  # a place on the border, to 1/256 of a pixel, belongs to both sides
    both = valid & theirs
    off = np.abs(values.astype(int) - gdal(part, pixels, Resampling.bilinear))[:, both]
    assert off.max() <= 1


@pytest.mark.parametrize(("crs", "turn"), OTHERS)
def test_every_pixel_is_in_its_place_to_a_hundredth(write_scene: WriteScene, crs: str, turn: float) -> None:
    height, width = 560, 620  # more than is sampled at a time
    rows, cols = np.mgrid[:height, :width].astype(np.float32)
    part = warped(write_scene(np.stack([rows, cols]), crs, turn=turn, shift=(0.2, 0.6)))
    values, valid = whole(part)
    target = part.grid.crop(part.window)
    t = target.transform
    y, x = np.nonzero(valid)
    there = Transformer.from_crs(target.crs.to_wkt(), crs, always_xy=True).transform(
        t.c + t.a * (x + 0.5), t.f + t.e * (y + 0.5)
    )
    col, row = ~part.scene.native.transform @ np.stack(there)
    inner = (row > 0.5) & (row < height - 0.5) & (col > 0.5) & (col < width - 0.5)
    off = np.stack([values[0][valid] - (row - 0.5), values[1][valid] - (col - 0.5)])[:, inner]
    assert inner.sum() > 200_000
    assert np.abs(off.mean(axis=1)).max() < 0.002  # places are rounded to 1/256
    assert np.abs(off).max() < 0.01


@pytest.fixture(scope="module")
def awkward(write_scene: WriteScene) -> list[Warped]:
    """Scenes of several types and CRSs, with holes, on one grid."""
    write = write_scene
    holes = np.kron(np.random.default_rng(3).random((9, 8)) < 0.8, np.ones((20, 20), bool)).astype(bool)
    noise = np.random.default_rng(1).integers(0, 256, (4, 180, 160), np.uint8)
    scenes = [
        write(noise[:3], "EPSG:32631", name="bytes"),
        write(noise, "EPSG:3857", valid=holes, name="masked"),
        write(noise[:2].astype(np.uint16) * 200, "EPSG:4326", valid=holes, name="words"),
        write(np.sqrt(noise[:1].astype(np.float32)), "EPSG:32630", turn=30, name="floats"),
        write(noise[:3], "EPSG:32631", px=0.13, valid=holes, name="fine"),
        write(noise[:3], "EPSG:32630", shift=(5, 3), name="own"),
    ]
    frame = choose_grid(scenes, crs=UTM, gsd_m=0.3)
    parts = [place(scene, frame) for scene in scenes]
    return [part for part in parts if part is not None]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data(), which=st.integers(0, 5))
def test_a_pixel_does_not_depend_on_the_window(awkward: list[Warped], data: st.DataObject, which: int) -> None:
    part = awkward[which]
    height, width = part.window.shape
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    shape = data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    window = Window(part.window.row + row, part.window.col + col, *shape)
    all_values, all_valid = whole(part)
    pixels, cut = part.read(window), window.relative_to(part.window).slices
    np.testing.assert_array_equal(pixels.values, all_values[:, *cut])
    np.testing.assert_array_equal(pixels.valid, all_valid[cut])
    np.testing.assert_array_equal(part.read_valid(window), all_valid[cut])


def test_nor_does_it_depend_on_how_far_the_grid_reaches(awkward: list[Warped]) -> None:
    frame = awkward[0].grid
    cut = Window(37, 51, 90, 77)
    for part in awkward:
        there = place(part.scene, crop_grid(frame, cut))
        assert there is not None
        window = there.window
        mine = part.read(Window(window.row + cut.row, window.col + cut.col, *window.shape))
        np.testing.assert_array_equal(there.read(window).values, mine.values)
        np.testing.assert_array_equal(there.read(window).valid, mine.valid)


def test_a_scene_on_the_lattice_of_the_grid_is_copied(write_scene: WriteScene, smooth: Smooth) -> None:
    pixels = smooth(60, 70, sigma=1)
    part = warped(write_scene(pixels, shift=(-4, 7)))
    assert part.shift is not None
    values, valid = whole(part)
    rows, cols = np.nonzero(valid)
    assert valid.sum() == 60 * 70
    np.testing.assert_array_equal(values[:, rows.min() : rows.max() + 1, cols.min() : cols.max() + 1], pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_nodata_never_bleeds_into_its_neighbors(write_scene: WriteScene, dtype: str) -> None:
    valid = np.kron(np.random.default_rng(0).random((12, 12)) < 0.6, np.ones((11, 11), bool)).astype(bool)
    pixels = np.where(valid, 200, 17)[None].astype(dtype)
    values, mask = whole(warped(write_scene(pixels, "EPSG:32631", valid=valid)))
    assert 0.4 < mask.mean() < 0.7
    np.testing.assert_array_equal(values[0], np.where(mask, 200, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_whole_numbers_are_rounded_to_the_nearest_and_beside_nodata_too(write_scene: WriteScene, dtype: str) -> None:
    rng = np.random.default_rng(0)
    valid = np.kron(rng.random((12, 12)) < 0.6, np.ones((11, 11), bool)).astype(bool)
    pixels = rng.integers(0, 256, (1, 132, 132))
    whole_numbers, _ = whole(warped(write_scene(pixels.astype(dtype), "EPSG:32631", valid=valid)))
    exact, mask = whole(warped(write_scene(pixels.astype(np.float32), "EPSG:32631", valid=valid, name="exact")))
    off = (whole_numbers - exact)[:, mask]
    assert np.abs(off).max() <= 0.5001
    assert abs(off.mean()) < 0.02


def test_a_pixel_is_valid_where_the_nearest_one_is(write_scene: WriteScene, smooth: Smooth) -> None:
    valid = np.kron(np.random.default_rng(0).random((30, 30)) < 0.5, np.ones((5, 5), bool)).astype(bool)
    part = warped(write_scene(smooth(150, 150), "EPSG:32631", valid=valid))
    theirs = gdal(part, valid[None].astype(np.uint8), Resampling.nearest)[0] > 0
    assert (whole(part)[1] != theirs).mean() < 0.002  # places halfway between two pixels


def test_neighbors_in_another_CRS_leave_no_gap_and_hardly_overlap(write_scene: WriteScene, smooth: Smooth) -> None:
    pixels = smooth(120, 160)
    left = write_scene(pixels[..., :70], "EPSG:4326", name="left")
    right = write_scene(pixels[..., 70:], "EPSG:4326", shift=(70, 0), name="right")
    both = write_scene(pixels, "EPSG:4326", name="both")
    frame = choose_grid([both], crs=UTM, gsd_m=0.1)
    masks = [np.zeros(frame.shape, int) for _ in range(3)]
    for mask, scene in zip(masks, (left, right, both), strict=True):
        part = place(scene, frame)
        assert part is not None
        mask[part.window.slices] = part.read_valid(part.window)
    assert not (masks[2].astype(bool) & (masks[0] + masks[1] == 0)).any()
    assert (masks[0] + masks[1] > 1).sum() < 10


def test_a_finer_scene_is_averaged_and_a_coarser_one_interpolated(write_scene: WriteScene) -> None:
    stripes = np.tile(np.array([0, 200], np.uint8), (1, 400, 200))
    fine = warped(write_scene(stripes, "EPSG:32631", px=0.05), gsd_m=0.3)
    values, valid = whole(fine)
    assert fine.scene.grid.shape != fine.scene.native.shape
    inner = values[0][2:-2, 2:-2][valid[2:-2, 2:-2]]
    assert inner.min() > 85
    assert inner.max() < 115
    coarse = warped(write_scene(stripes[..., :40, :40], "EPSG:32631", px=1.0, name="coarse"), gsd_m=0.3)
    assert coarse.scene.grid == coarse.scene.native
    assert set(np.unique(whole(coarse)[0])) >= {0, 100, 200}


def test_nodes_come_closer_where_the_projections_bend_more(write_scene: WriteScene) -> None:
    polar = CRS.from_epsg(32661)
    rows, cols = np.mgrid[:80, :360].astype(np.float32)
    scene = write_scene(np.stack([rows, cols]))
    world = Grid(CRS.from_epsg(4326), Affine(1.0, 0, -180, 0, -0.1, 89.0), (80, 360))
    scene = place_at(scene, world)
    part = place(scene, choose_grid([scene], crs=polar, gsd_m=5_000))
    assert part is not None
    assert part.step_px < STEP_PX
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, part.grid.height, 300), rng.integers(0, part.grid.width, 300)
    t = part.grid.transform
    lon, lat = Transformer.from_crs(polar.to_wkt(), "EPSG:4326", always_xy=True).transform(
        t.c + t.a * (x + 0.5), t.f + t.e * (y + 0.5)
    )
    for row, col, there in zip(y, x, zip((89 - lat) / 0.1, lon + 180, strict=True), strict=True):
        found = part.read(Window(int(row), int(col), 1, 1))
        near_pole_border_or_seam = not 6 <= there[0] <= 79 or not 5 < there[1] < 355
        if not near_pole_border_or_seam:
            assert found.valid.all()
            np.testing.assert_allclose(found.values[:, 0, 0] + 0.5, there, atol=0.07)


def place_at(scene: Scene, grid: Grid) -> Scene:
    """A scene somewhere else."""
    return replace(scene, native=grid, grid=grid)


def test_a_scene_that_has_no_place_in_the_CRS_is_refused_by_name(write_scene: WriteScene, smooth: Smooth) -> None:
    scene = place_at(write_scene(smooth(9, 9)), Grid(CRS.from_epsg(4326), Affine(1, 0, 0, 0, -1, 500), (9, 9)))
    with pytest.raises(SceneMismatchError, match=r"scene \(bounds .* has no place in EPSG:32630"):
        place(scene, Grid(UTM, Affine(0.3, 0, 0, 0, -0.3, 0), (9, 9)))


def test_a_scene_beside_the_grid_is_not_placed(write_scene: WriteScene, smooth: Smooth) -> None:
    scene = write_scene(smooth(9, 9), "EPSG:32631")
    assert place(scene, Grid(UTM, Affine(0.3, 0, 0, 0, -0.3, 0), (9, 9))) is None
