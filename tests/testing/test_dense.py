"""Dense scenes: houses that share walls, each a polygon of its own and true to its painted roof."""

import hashlib

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import rasterize

from geoseg.testing import PaintedScene, paint_scene
from geoseg.testing.style import DENSE_REGIONS

SMALL_PX = 320


@pytest.fixture(scope="module", params=sorted(DENSE_REGIONS))
def scene(request: pytest.FixtureRequest) -> PaintedScene:
    """One small scene of each region."""
    return paint_scene(11, size_px=SMALL_PX, region=request.param, kind="dense")


def shared(scene: PaintedScene) -> tuple[NDArray[np.object_], NDArray[np.intp], NDArray[np.object_]]:
    """Outlines, the pairs (2, n) of those that touch, and what each pair has in common."""
    outlines = np.array(scene.footprints, object)
    pairs = shapely.STRtree(outlines).query(outlines, "intersects")
    pairs = pairs[:, pairs[0] < pairs[1]]
    return outlines, pairs, shapely.intersection(outlines[pairs[0]], outlines[pairs[1]])


@given(seed=st.integers(0, 10**6), region=st.sampled_from(sorted(DENSE_REGIONS)), size_px=st.sampled_from((64, 150)))
@settings(max_examples=25, deadline=None)
def test_no_two_buildings_overlap_and_all_are_valid(seed: int, region: str, size_px: int) -> None:
    scene = paint_scene(seed, size_px=size_px, region=region, kind="dense")
    outlines, _, common = shared(scene)
    assert shapely.area(common).max(initial=0) < 1e-6
    assert shapely.is_valid(outlines).all()
    assert all(footprint.geom_type == "Polygon" for footprint in scene.footprints)


def test_most_buildings_share_a_wall(scene: PaintedScene) -> None:
    outlines, pairs, common = shared(scene)
    walls = pairs[:, shapely.length(common) > 1.0]
    assert np.unique(walls).size > 0.6 * len(outlines)


def test_a_shared_wall_has_the_same_corners_in_both_buildings(scene: PaintedScene) -> None:
    """No corner of one building lies within a wall of another."""
    outlines, pairs, _ = shared(scene)
    for first, second in pairs.T.tolist():
        corners = [shapely.MultiPoint(shapely.get_coordinates(outlines[k])) for k in (first, second)]
        for own, other, outline in (
            (corners[0], corners[1], outlines[second]),
            (corners[1], corners[0], outlines[first]),
        ):
            on_wall = shapely.get_parts(own)[shapely.dwithin(shapely.get_parts(own), outline.boundary, 1e-7)]
            assert (shapely.distance(on_wall, other) < 1e-6).all()


def test_every_building_lies_on_its_painted_roof(scene: PaintedScene) -> None:
    """Save where a tree hangs over it."""
    numbers = rasterize(
        [(shape, k + 1) for k, shape in enumerate(scene.footprints)], scene.grid.shape, transform=scene.grid.transform
    )
    of_each = np.bincount(numbers.ravel(), minlength=len(scene.footprints) + 1)[1:]
    painted = np.bincount(numbers[scene.roof], minlength=len(scene.footprints) + 1)[1:]
    whole = of_each > 30
    assert whole.sum() > 20
    assert (painted[whole] / of_each[whole] > 0.6).all()
    assert painted.sum() / of_each.sum() > 0.97


def test_walls_between_buildings_show_in_the_image(scene: PaintedScene) -> None:
    numbers = rasterize(
        [(shape, k + 1) for k, shape in enumerate(scene.footprints)], scene.grid.shape, transform=scene.grid.transform
    )
    steps = np.abs(np.diff(scene.image.astype(float), axis=2)).sum(axis=0)
    left, right = numbers[:, :-1], numbers[:, 1:]
    wall = (left > 0) & (right > 0) & (left != right)
    assert wall.sum() > 200
    assert steps[wall].mean() > 1.3 * steps[(left > 0) & (left == right)].mean()


def test_courtyards_are_holes() -> None:
    scenes = [paint_scene(seed, size_px=512, region="courtyards", kind="dense") for seed in range(1, 4)]
    assert any(footprint.interiors for scene in scenes for footprint in scene.footprints)


def test_seeds_reach_every_dense_region_and_repeat_exactly() -> None:
    scenes = [paint_scene(seed, size_px=64, kind="dense") for seed in range(1, 17)]
    assert {scene.region for scene in scenes} == set(DENSE_REGIONS)
    again = paint_scene(3, size_px=64, kind="dense")
    np.testing.assert_array_equal(again.image, scenes[2].image)
    assert again.footprints == scenes[2].footprints


def test_dense_scenes_lie_elsewhere_than_plain_ones() -> None:
    plain, dense = (paint_scene(3, size_px=64, kind=kind).grid.bounds for kind in ("plain", "dense"))
    assert not shapely.box(*plain).intersects(shapely.box(*dense))


@pytest.mark.parametrize(
    ("seed", "region", "digest"),
    [
        (5, "compounds", "96aca220955fd137"),
        (5, "hill_town", "8677f10d70d1cbd3"),
        (6, "suburb", "6b48f00a939d721c"),
        (7, "old_town", "49329ce95ea060b2"),
        (1000, None, "cdc5d2bf92871a90"),
        (1013, None, "4cf741e13ac4fb66"),
    ],
)
def test_plain_seeds_paint_what_they_always_painted(seed: int, region: str | None, digest: str) -> None:
    """Published models were trained on them."""
    scene = paint_scene(seed, size_px=256, region=region)
    content = scene.image.tobytes() + scene.roof.tobytes() + b"".join(shapely.to_wkb(scene.footprints))
    assert hashlib.sha256(content).hexdigest()[:16] == digest


@pytest.mark.parametrize(("options", "said"), [({"kind": "denser"}, "`kind`"), ({"region": "informal"}, "`region`")])
def test_kinds_and_regions_that_there_are_not_are_named(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        paint_scene(1, size_px=64, **options)  # type: ignore[arg-type]
