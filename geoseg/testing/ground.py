"""The ground: grass, soil and paving by plot, roads on top, all mottled at several scales."""

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString

from geoseg.testing.canvas import Canvas, octaves, triangle_wave
from geoseg.testing.sites import FIELD, FOREST, GRASS, PAVED, SOIL, Sites
from geoseg.testing.streets import Road, Streets
from geoseg.testing.style import RGB, Style

_MOTTLE = {GRASS: 1.0, SOIL: 0.8, PAVED: 0.45, FIELD: 0.7, FOREST: 1.2}


def burn_roads(canvas: Canvas, streets: Streets) -> NDArray[np.int_]:
    """Rasterize the roads: road number + 1 at each sample, 0 elsewhere."""
    shapes = [(road.line.buffer(road.width_m / 2, quad_segs=4), index + 1) for index, road in enumerate(streets.roads)]
    return canvas.burn(list(shapes))


def paint_ground(
    canvas: Canvas, sites: Sites, streets: Streets, roads: NDArray[np.int_], style: Style, rng: np.random.Generator
) -> None:
    """Paint everything that is flat.

    Args:
        canvas: Where to.
        sites: The plots and their kinds of ground.
        streets: The roads.
        roads: (y, x) result of `burn_roads`.
        style: Gives the colors.
        rng: Source of chance.
    """
    base = int(np.argmax(style.plot_ground)) + 1  # where there is no plot
    kinds = [base, *(kind for _, kind in sites.grounds)]
    colors = np.array([_ground_color(kind, style, rng) for kind in kinds], np.float32)
    plots = canvas.burn([(outline, index + 1) for index, (outline, _) in enumerate(sites.grounds)])
    ground = np.array(kinds)[plots]
    wide, mid, fine = canvas.grain
    huge = octaves(rng, canvas.shape, 30 / canvas.step_m, 3)
    patch = octaves(rng, canvas.shape, 7 / canvas.step_m, 4)
    mottle = np.array([_MOTTLE[kind] for kind in kinds], np.float32)[plots]
    shade = 1 + mottle * (0.09 * huge + 0.08 * patch + 0.08 * mid + 0.07 * fine)
    bare = np.clip((patch + 0.6 * huge + 0.3 * mid - 0.25) * 1.6, 0, 0.85) * mottle
    bare *= np.where(ground == PAVED, np.float32(0.8), np.float32(1))
    soil, grass = np.array(style.soil[0], np.float32), np.array(style.grass[0], np.float32)
    weeds = np.clip((huge - wide + 0.4 * mid - 0.45) * 1.6, 0, 0.8) * mottle * np.float32(0.35 + style.plot_ground[0])
    for band in range(3):
        color = colors[:, band][plots]
        color += (soil[band] - color) * bare
        color += (grass[band] - color) * weeds
        canvas.rgb[..., band] = color * shade
    for plot in np.unique(plots[ground == FIELD]).tolist():  # rows of crops, in each field in its own direction
        rows, cols = np.nonzero((plots == plot) & (ground == FIELD))
        cos, sin = rng.integers(-64, 65, 2) / 64.0
        wave = triangle_wave(canvas.centers[cols] * cos + canvas.centers[rows] * sin, rng.uniform(0.9, 2.2))
        strips = np.floor((canvas.centers[cols] * sin - canvas.centers[rows] * cos) / rng.uniform(9, 25)) % 8
        tone = 1 + 0.08 * wave + (rng.random(8) * 0.3 - 0.15)[strips.astype(np.intp)]
        canvas.rgb[rows, cols] *= tone[:, None].astype(np.float32)
    _paint_roads(canvas, streets.roads, roads, style, rng)


def _ground_color(kind: int, style: Style, rng: np.random.Generator) -> NDArray[np.float64]:
    choices: dict[int, tuple[RGB, ...]] = {GRASS: style.grass, SOIL: style.soil, PAVED: style.paved, FOREST: style.soil}
    palette = choices.get(kind, style.grass + style.soil)
    color = np.array(palette[int(rng.integers(len(palette)))], np.float64)
    if kind == FOREST:
        color *= 0.72
    return color * rng.normal(1.0, 0.055) + rng.normal(0, 3, 3)


def _paint_roads(
    canvas: Canvas, roads: tuple[Road, ...], index: NDArray[np.int_], style: Style, rng: np.random.Generator
) -> None:
    wide, mid, fine = canvas.grain
    _paint_verges(canvas, roads, index, style, rng)
    on_road = index > 0
    asphalt = np.array(style.road[int(rng.integers(len(style.road)))], np.float64)
    colors = []
    for road in roads:
        soil = np.array(style.soil[int(rng.integers(len(style.soil)))], np.float64) * 1.02
        tarred = asphalt * rng.normal(1, 0.06)
        dirt = 0.0
        if not style.markings:  # small roads of such regions are often bare soil
            dirt = float(rng.uniform(0.4, 1.0) if road.width_m < 5.5 else rng.uniform(0.0, 0.4))
        colors.append(tarred + (soil - asphalt) * dirt)
    color = np.stack(colors or [asphalt]).astype(np.float32)[index[on_road] - 1]
    shade = 1 + 0.05 * wide[on_road] + 0.035 * mid[on_road] + 0.035 * fine[on_road]
    canvas.rgb[on_road] = color * shade[:, None]
    if style.markings:
        dashes = []
        for road in roads:
            for start in np.arange(2.0, road.line.length - 4, 9.0).tolist() if road.width_m > 7.5 else ():
                dash = LineString([road.line.interpolate(start), road.line.interpolate(start + 3.0)])
                dashes.append((dash.buffer(0.09, cap_style="flat"), 1))
        paint = canvas.burn(dashes, "uint8") > 0
        canvas.rgb[paint] = canvas.rgb[paint] * 0.35 + np.float32(205 * 0.65)


def _paint_verges(
    canvas: Canvas, roads: tuple[Road, ...], index: NDArray[np.int_], style: Style, rng: np.random.Generator
) -> None:
    """Paint a strip along the roads: pavement, or worn soil."""
    reach = 1.6 if style.markings else 0.9
    verge = canvas.burn([(road.line.buffer(road.width_m / 2 + reach, quad_segs=4), 1) for road in roads], "uint8") > 0
    verge &= index == 0
    color = np.array((168, 164, 156) if style.markings else style.soil[int(rng.integers(len(style.soil)))], np.float32)
    wide, mid, fine = (grain[verge] for grain in canvas.grain)
    share = np.float32(0.75) if style.markings else np.clip(0.5 + 0.5 * wide + 0.3 * mid, 0, 0.9)
    old = canvas.rgb[verge]
    new = color * (1 + 0.05 * mid + 0.05 * fine)[:, None]
    canvas.rgb[verge] = old + (new - old) * (share if np.ndim(share) == 0 else np.asarray(share)[:, None])
