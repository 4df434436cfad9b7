"""PoLiS by hand, and by brute force."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.evaluate.buildings import polis


def as_array(*polygons: shapely.Geometry) -> np.ndarray:
    return np.array(polygons, object)


def test_equal_outlines_are_at_no_distance() -> None:
    one = as_array(shapely.box(0, 0, 4, 3))
    assert polis(one, one) == [0]


def test_by_hand_a_square_inside_another() -> None:
    inner, outer = shapely.box(1, 1, 3, 3), shapely.box(0, 0, 4, 4)
    # The inner corners are 1 from the outer edges; the outer corners are sqrt(2) from the inner corners.
    assert polis(as_array(inner), as_array(outer)) == pytest.approx((1 + np.sqrt(2)) / 2)


def test_by_hand_a_needless_corner_far_out_counts_by_its_distance() -> None:
    plain = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)])
    spike = shapely.Polygon([(0, 0), (5, -3), (10, 0), (10, 10), (0, 10)])
    # Of the spike's 5 corners one is 3 from the plain outline. The plain corners lie on the spike's outline.
    assert polis(as_array(plain), as_array(spike)) == pytest.approx(3 / 5 / 2)


def test_it_is_the_same_both_ways_and_grows_with_the_unit() -> None:
    a, b = as_array(shapely.box(0, 0, 5, 2)), as_array(shapely.box(1, 0.5, 5.5, 3))
    assert polis(a, b) == pytest.approx(polis(b, a))
    tenfold = [np.array(shapely.transform(side, lambda xy: xy * 10), object) for side in (a, b)]
    assert polis(*tenfold) == pytest.approx(10 * polis(a, b))


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_many_pairs_are_as_one_by_one_and_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def star(corners: int) -> shapely.Polygon:
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        radius = rng.uniform(2, 6, corners)
        return shapely.Polygon(np.column_stack((radius * np.cos(angle), radius * np.sin(angle))))

    a, b = (as_array(*(star(int(rng.integers(3, 9))) for _ in range(3))) for _ in range(2))
    found = polis(a, b)
    for k in range(3):
        means = [
            np.mean([outline.exterior.distance(shapely.Point(xy)) for xy in other.exterior.coords[:-1]])
            for outline, other in ((b[k], a[k]), (a[k], b[k]))
        ]
        assert found[k] == pytest.approx(np.mean(means))


def test_corners_of_holes_count() -> None:
    solid = shapely.box(0, 0, 10, 10)
    holed = shapely.Polygon(solid.exterior, [shapely.box(4, 4, 6, 6).exterior])
    # Of the 8 corners of the holed one 4 are 4 from the solid outline.
    assert polis(as_array(holed), as_array(solid)) == pytest.approx((4 * 4 / 8) / 2)
