"""Paint a whole scene from a seed."""

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry import Polygon, box

from geoseg.grid import Grid
from geoseg.testing.buildings import paint_building
from geoseg.testing.canvas import MARGIN_PX, SUPERSAMPLING, Canvas
from geoseg.testing.ground import burn_roads, paint_ground
from geoseg.testing.light import cast_shadows, expose, sun_vector
from geoseg.testing.props import paint_props, paint_trees
from geoseg.testing.roofs import paint_houses
from geoseg.testing.sites import SitePlanner
from geoseg.testing.streets import plan_streets
from geoseg.testing.style import KINDS, draw_style

SCENE_CRS = "EPSG:32630"
SCENE_ORIGIN = (811_200.0, 618_900.0)
SMALLEST_PART_M2 = 0.5


@dataclass(frozen=True, slots=True)
class PaintedScene:
    """A painted scene and the truth about it.

    Attributes:
        image: (3, y, x) uint8 RGB.
        footprints: True roof outlines in CRS coordinates, clipped to the scene; some have courtyards, some touch.
        grid: Georeference of the image.
        roof: (y, x) bool, True where the picture shows roof (trees that overhang a roof are False).
        region: Name of the style.
    """

    image: NDArray[np.uint8]
    footprints: list[Polygon]
    grid: Grid
    roof: NDArray[np.bool_]
    region: str


def paint_scene(
    seed: int, *, size_px: int = 1024, gsd_m: float = 0.3, region: str | None = None, kind: str = "plain"
) -> PaintedScene:
    """Paint an aerial scene.

    The same seed gives the same pixels on every machine: numpy's PCG64 is the only source of randomness, and no value
    depends on the last bits of a transcendental function, a sum's order or a threaded library.

    Args:
        seed: Picks region, street plan, houses, sun, weather and sensor.
        size_px: Rows and columns.
        gsd_m: Meters per pixel.
        region: `compounds`, `hill_town`, `suburb` or `old_town`, or for dense scenes `terraces`, `courtyards`,
            `packed_town` or `informal`; drawn from the seed if None.
        kind: `plain`: most buildings stand apart; `dense`: most share walls, and corners, with their neighbors.

    Returns:
        The scene with its true footprints.

    Raises:
        ValueError: If there is no such kind, or no such region of this kind.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` is {kind!r}; expected one of {', '.join(KINDS)}")
    if region is not None and region not in KINDS[kind]:
        raise ValueError(f"`region` is {region!r}; expected one of {', '.join(KINDS[kind])} for kind {kind}")
    draws = [np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, part]))) for part in range(8)]
    style = draw_style(draws[0], region, kind)
    canvas = Canvas(size_px, gsd_m, draws[1])
    streets = plan_streets(draws[2], style, canvas.side_m)
    roads = burn_roads(canvas, streets)
    canvas.taken |= roads > 0
    sites = SitePlanner(canvas, streets, style, draws[3]).plan()
    paint_ground(canvas, sites, streets, roads, style, draws[4])
    sun, contrast = sun_vector(style), min(1.0, 1.25 - sum(style.shadow) / 2)
    paint_props(canvas, sites.props, style, draws[5])
    for building in sites.buildings:
        paint_building(canvas, building, sun, contrast)
    paint_houses(canvas, sites.houses, sites.house_numbers, sun, contrast)
    paint_trees(canvas, sites.props, style, sun, draws[5])
    cast_shadows(canvas, sun, draws[6].uniform(*style.shadow), style.tallest_m)
    # each seed has a place of its own, so that scenes of one run do not overlap
    east, north = SCENE_ORIGIN[0] + 2000.0 * (seed % 32), SCENE_ORIGIN[1] + 2000.0 * (seed // 32 % 32)
    north += 0.0 if kind == "plain" else 70_000.0
    grid = Grid(CRS.from_user_input(SCENE_CRS), Affine(gsd_m, 0, east, 0, -gsd_m, north), (size_px, size_px))
    outlines = [building.outline() for building in sites.buildings] + [house.outline for house in sites.houses]
    footprints = _footprints(outlines, canvas.side_m, grid)
    return PaintedScene(expose(canvas, style, draws[7]), footprints, grid, _roof(canvas), style.name)


def _roof(canvas: Canvas) -> NDArray[np.bool_]:
    """Return True where most of a pixel's samples are roof; if half are, the first decides, so that no edge shifts."""
    margin = MARGIN_PX * SUPERSAMPLING
    inner = canvas.roof[margin:-margin, margin:-margin]
    parts = [
        inner[row::SUPERSAMPLING, col::SUPERSAMPLING] for row in range(SUPERSAMPLING) for col in range(SUPERSAMPLING)
    ]
    twice = 2 * np.sum(parts, axis=0)
    most: NDArray[np.bool_] = (twice > len(parts)) | ((twice == len(parts)) & parts[0])
    return most


def _footprints(outlines: list[Polygon], side_m: float, grid: Grid) -> list[Polygon]:
    """Return outlines in scene meters in CRS coordinates, clipped to the scene."""
    frame, corner = box(0, 0, side_m, side_m), np.array((grid.transform.c, grid.transform.f))
    parts: list[Polygon] = []
    for outline in outlines:
        clipped = outline if frame.contains(outline) else outline.intersection(frame)
        parts += [
            part for part in shapely.get_parts(clipped) if part.geom_type == "Polygon" and part.area > SMALLEST_PART_M2
        ]
    return [shapely.transform(part, lambda points: corner + points * np.array((1.0, -1.0))) for part in parts]
