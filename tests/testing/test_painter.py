"""Painted scenes: the same everywhere, true to their footprints, and varied."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray

from geoseg.testing import PaintedScene, label_raster, paint_scene
from geoseg.testing.style import KINDS, REGIONS

SMALL_PX = 384


@pytest.fixture(scope="module", params=[(kind, region) for kind in KINDS for region in sorted(KINDS[kind])])
def scene(request: pytest.FixtureRequest) -> PaintedScene:
    """One small scene of each region."""
    kind, region = request.param
    return paint_scene(5, size_px=SMALL_PX, region=region, kind=kind)


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grow a mask by one pixel in all eight directions."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[row : row + height, col : col + width] for row in range(3) for col in range(3)]
    result: NDArray[np.bool_] = np.logical_or.reduce(shifted)
    return result


def test_a_seed_always_gives_the_same_scene_whatever_the_global_random_state() -> None:
    first = paint_scene(7, size_px=160)
    np.random.seed(1)  # noqa: NPY002 - the legacy state is what must not matter
    second = paint_scene(7, size_px=160)
    np.testing.assert_array_equal(first.image, second.image)
    assert first.footprints == second.footprints
    assert first.grid == second.grid


def test_seeds_differ() -> None:
    first, second = (paint_scene(seed, size_px=160, region="suburb") for seed in (7, 8))
    assert (first.image != second.image).mean() > 0.9
    assert first.grid.bounds != second.grid.bounds


def test_seeds_reach_every_region() -> None:
    assert {paint_scene(seed, size_px=32).region for seed in range(1, 25)} == set(REGIONS)


def test_image_is_rgb_on_its_grid(scene: PaintedScene) -> None:
    assert scene.image.shape == (3, SMALL_PX, SMALL_PX)
    assert scene.image.dtype == np.uint8
    assert scene.grid.gsd_m == pytest.approx((0.3, 0.3), rel=2e-2)


def test_image_uses_its_range_and_is_not_flat(scene: PaintedScene) -> None:
    assert 40 < scene.image.mean() < 180
    assert scene.image.std(axis=(1, 2)).min() > 12
    assert ((scene.image == 0) | (scene.image == 255)).mean() < 0.02


def test_footprints_are_valid_and_inside_the_scene(scene: PaintedScene) -> None:
    extent = shapely.box(*scene.grid.bounds).buffer(1e-6)
    assert len(scene.footprints) >= 10
    assert all(footprint.is_valid and footprint.geom_type == "Polygon" for footprint in scene.footprints)
    assert all(extent.covers(footprint) for footprint in scene.footprints)


def test_footprints_do_not_overlap(scene: PaintedScene) -> None:
    outlines = np.array(scene.footprints)
    first, second = shapely.STRtree(outlines).query(outlines, "intersects")
    pairs = first < second
    shared = shapely.area(shapely.intersection(outlines[first[pairs]], outlines[second[pairs]]))
    assert (shared < 0.01).all()


def test_no_roof_is_painted_outside_the_footprints(scene: PaintedScene) -> None:
    """Save at the very border, where slivers of cut houses are no footprints."""
    outside = scene.roof & ~grown(label_raster(scene) > 0)
    assert not outside[3:-3, 3:-3].any()


def test_roofs_are_missing_inside_the_footprints_only_under_trees(scene: PaintedScene) -> None:
    core = ~grown(label_raster(scene) == 0)
    assert (core & ~scene.roof).sum() < 0.03 * core.sum()


def test_painted_roofs_agree_with_the_footprints(scene: PaintedScene) -> None:
    label = label_raster(scene) > 0
    assert (label & scene.roof).sum() / (label | scene.roof).sum() > 0.94


def test_roof_edges_show_in_the_image_where_the_footprints_are(scene: PaintedScene) -> None:
    """The picture changes more along the outlines than elsewhere, and less so when the outlines are moved 2 px."""
    label = label_raster(scene) > 0
    steps = np.abs(np.diff(scene.image.astype(np.float64), axis=2)).sum(axis=0)
    edge = np.diff(label, axis=1)
    moved = np.roll(edge, 2, axis=1)
    assert steps[edge].mean() > 1.3 * steps[moved].mean() > 0
    assert steps[edge].mean() > 1.8 * steps.mean()


def test_another_gsd_shows_the_same_kind_of_land_coarser() -> None:
    scene = paint_scene(5, size_px=200, gsd_m=1.0, region="suburb")
    areas = [footprint.area for footprint in scene.footprints]
    assert scene.grid.bounds[2] - scene.grid.bounds[0] == pytest.approx(200.0)
    assert 30 < float(np.median(areas)) < 300


@pytest.mark.slow
def test_each_region_has_courtyards() -> None:
    for region in sorted(REGIONS):
        scenes = (paint_scene(seed, size_px=512, region=region) for seed in range(1, 7))
        assert any(footprint.interiors for scene in scenes for footprint in scene.footprints), region


def test_footprints_follow_the_image_through_a_file(tmp_path: Path) -> None:
    from geoseg.testing import write_training_scenes

    ((image, labels),) = write_training_scenes(tmp_path, [3], size_px=128)
    with rasterio.open(image) as pixels, rasterio.open(labels) as truth:
        assert (pixels.count, truth.count) == (3, 1)
        assert pixels.transform == truth.transform
        assert pixels.crs == truth.crs
        assert set(np.unique(truth.read(1))) <= {0, 1}
        np.testing.assert_array_equal(pixels.read(), paint_scene(3, size_px=128).image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["painted_0003.tif", "painted_0003_labels.tif"]
