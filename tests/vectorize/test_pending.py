"""Blocks finished on their own, and what was pending together, are the scene finished in one piece."""

from dataclasses import dataclass, fields
from itertools import groupby

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rasterio.crs import CRS

from geoseg.grid import Grid
from geoseg.vectorize import Footprints, Generalizer, Outlines, Pending, Regularize, SeamSweep, Simplify, finish_block
from geoseg.vectorize.footprints import Limits
from geoseg.vectorize.generalize import SIMPLE, part_overlaps
from geoseg.vectorize.instances import Links, solve
from geoseg.vectorize.rings import reading_order

UTM = (CRS.from_epsg(32630), Affine(0.3, 0, 809267, 0, -0.3, 618981))
PICTURE = (None, Affine.identity())


def finish_in_blocks(
    cut, mask, grid, *, probability=None, valid=None, surface=None, depth=None, rows=(), cols=(), **options
):
    """Return what the blocks finished and what was pending, joined, each in reading order."""
    finished, joined = [], []
    blocks = cut(mask, probability, valid, surface, rows=rows, cols=cols, depth=depth)
    links = Links.concatenate([polygons.links for _, polygons in blocks])
    sweep = SeamSweep(grid, solve(links), **options)
    for below, row in groupby(blocks, key=lambda block: block[0].rows.stop):
        done = [finish_block(polygons, window, grid, **options) for window, polygons in row]
        finished += [block.finished for block in done]
        joined.append(sweep.add(Pending.concatenate([block.pending for block in done]), below))
    joined.append(sweep.add(Pending.concatenate([]), None))
    assert len(sweep.held) == 0
    return Footprints.concatenate(finished), Footprints.concatenate(joined)


def check_equal(found, expected):
    for field in fields(Footprints):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)


@st.composite
def roofs(draw, shape):
    """A mask of stairs, bars and crosses that lie side by side, in one another and corner to corner."""
    rows, cols = np.indices(shape)
    slope, step = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0, -0.4, 3.0])), draw(st.integers(3, 9))
    stripes = (rows - slope * cols) % step < draw(st.integers(1, step - 1))
    walls = (cols + slope * rows) % draw(st.integers(4, 20)) >= draw(st.integers(0, 3))
    noise = draw(arrays(bool, shape, elements=st.booleans(), fill=st.just(False)))
    return (stripes & walls) ^ noise


@st.composite
def scenes(draw):
    """A mask with its probabilities, valid pixels and any cut into blocks."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=draw(st.sampled_from([12, 40]))))
    random = arrays(bool, shape, elements=st.booleans(), fill=st.booleans())
    mask = draw(st.one_of(random, roofs(shape)))
    probability = draw(arrays(np.uint8, shape, fill=st.just(200)))
    heights = draw(st.sampled_from([1, 3, 10]))
    surface = draw(st.one_of(st.none(), arrays(np.int32, shape, elements=st.integers(0, heights), fill=st.just(1))))
    hole = draw(arrays(bool, shape, fill=st.just(False)))
    rows, cols = (sorted(draw(st.sets(st.integers(1, max(1, n - 1))))) if n > 1 else [] for n in shape)
    return mask, probability, ~hole, surface, rows, cols


@dataclass(frozen=True)
class Hull:
    """Another generalizer: convex hulls, which reach over other buildings as far as a building is long."""

    steps: tuple[float, ...] = (60.0, 60.0)

    def outlines(self, polygons: np.ndarray) -> Outlines:
        order = reading_order(polygons)
        hulls, back = shapely.convex_hull(polygons[order]), np.argsort(order)
        kind = np.full(len(polygons), SIMPLE, np.int8)
        found, kind = part_overlaps(polygons[order], hulls, kind)
        return Outlines(found[back], kind[back], np.tile([1.0, 0.0], (len(polygons), 1)))


GENERALIZERS = st.sampled_from([Hull(), *map(Simplify, (0.0, 0.5, 2.5)), *map(Regularize, (0.5, 1.0, 2.0))])


@settings(max_examples=200)
@given(
    scenes(),
    st.sampled_from([UTM, PICTURE]),
    GENERALIZERS,
    st.sampled_from([0.0, 0.3, 2.0]),
)
def test_blocks_and_joined_rest_equal_the_scene_in_one_piece(
    cut_with_windows, scene, place, generalizer: Generalizer, min_area_m2
):
    mask, probability, valid, surface, rows, cols = scene
    options = {"generalizer": generalizer, "limits": Limits(min_area_m2), "probability": probability, "valid": valid}
    options |= {} if surface is None else {"surface": surface, "depth": 2}
    grid = Grid(*place, mask.shape)
    whole, rest = finish_in_blocks(cut_with_windows, mask, grid, **options)
    assert len(rest) == 0
    finished, joined = finish_in_blocks(cut_with_windows, mask, grid, rows=rows, cols=cols, **options)
    check_equal(Footprints.concatenate([finished, joined]).in_reading_order(), whole)


def slanted_roofs(seed, shape=(150, 140)):
    rng, (rows, cols) = np.random.default_rng(seed), np.indices(shape)
    slope, step = rng.choice([0.2, 0.3, 0.5, 1, -0.4]), rng.integers(4, 10)
    roofs = (rows - slope * cols) % step < step - rng.integers(1, 3)
    walls = (cols + slope * rows) % rng.integers(8, 20) >= rng.integers(1, 4)
    return (roofs & walls) ^ (rng.random(shape) < 0.02)


CUTS = {
    "simple": (Simplify(1.0), (300, 200), {"rows": (120, 125, 170), "cols": (20,)}),
    "regular": (Regularize(1.0), (500, 200), {"rows": (240, 250), "cols": (20,)}),
}


@pytest.mark.parametrize(("generalizer", "shape", "lines"), CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("seed", [2, 3, 7])
def test_neighbors_within_a_block_and_in_blocks_below_are_remembered(cut_with_windows, seed, generalizer, shape, lines):
    mask = slanted_roofs(seed, shape)
    grid, options = Grid(*PICTURE, mask.shape), {"generalizer": generalizer, "limits": Limits()}
    whole, _ = finish_in_blocks(cut_with_windows, mask, grid, **options)
    finished, joined = finish_in_blocks(cut_with_windows, mask, grid, **lines, **options)
    assert len(finished) > 5 < len(joined)
    check_equal(Footprints.concatenate([finished, joined]).in_reading_order(), whole)
