"""Scenes that cannot meet the area are left out; those that may, and those of which nothing is known, stay."""

import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.sources import SceneSource, filter_sources

AREA = (6.0, 50.0, 7.0, 51.0)


def kept(area: tuple[float, float, float, float], **footprints: BaseGeometry | None) -> list[str]:
    sources = [SceneSource(name, (f"{name}.tif",), footprint=shape) for name, shape in footprints.items()]
    return [source.name for source in filter_sources(sources, area)]


def test_what_meets_the_area_or_is_unknown_stays() -> None:
    assert kept(
        AREA,
        inside=shapely.box(6.2, 50.2, 6.3, 50.3),
        away=shapely.box(8, 50, 9, 51),
        unknown=None,
        around=shapely.box(0, 40, 10, 60),
        beside=shapely.box(7, 50, 8, 51),
    ) == ["inside", "unknown", "around", "beside"]


def test_a_footprint_may_be_wrong_by_a_hundredth_of_its_size() -> None:
    assert kept(AREA, near=shapely.box(7.009, 50, 8.009, 51), far=shapely.box(7.011, 50, 8.011, 51)) == ["near"]


def test_an_area_across_the_antimeridian_has_two_sides() -> None:
    shapes = {
        "west": shapely.box(178, 0, 179.5, 1),
        "east": shapely.box(-179.8, 0, -179, 1),
        "away": shapely.box(0, 0, 1, 1),
    }
    assert kept((179, 0, -179.5, 1), **shapes) == ["west", "east"]


def test_footprints_may_count_longitudes_from_0_to_360() -> None:
    assert kept((-100, 30, -99, 31), there=shapely.box(259, 29, 262, 32), away=shapely.box(100, 29, 102, 32)) == [
        "there"
    ]


@pytest.mark.filterwarnings("error")
def test_a_footprint_that_crosses_itself_counts_with_its_bounds() -> None:
    bow = shapely.Polygon([(5, 49), (8, 52), (8, 49), (5, 52)])
    assert kept((7.4, 50.4, 7.5, 50.5), bow=bow) == ["bow"]


def test_footprints_with_heights_are_flat() -> None:
    assert kept(AREA, high=shapely.force_3d(shapely.box(6, 50, 7, 51), 900.0)) == ["high"]
