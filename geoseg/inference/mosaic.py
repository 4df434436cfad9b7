"""Several scenes planned as one: a mosaic."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC
from typing import Literal

import shapely
from rasterio.crs import CRS

from geoseg.bundle import Bundle, ModelSpec
from geoseg.errors import MissingDatetimeError, SceneMismatchError, UsageError
from geoseg.gdal import GDAL_ERRORS, placed_crs
from geoseg.grid import Grid, Window
from geoseg.inference.aoi import AOI, read_aoi
from geoseg.inference.plan import InferenceOptions, Plan, check_chips, fit_scene, lay_chips
from geoseg.io.datum import check_shift
from geoseg.io.tables import name_some
from geoseg.mosaic import check_size, choose_grid, compose, crop_grid, overlap, shares_lattice, sheet_windows
from geoseg.scene import Scene, gdal_env, open_raster, open_scene, parse_crs
from geoseg.sources import SceneSource, pixels_with_data
from geoseg.third_party import allow_no_georeference

Rule = Literal["first", "latest", "mean"]
"""What counts where scenes overlap: the first one given, the newest, or the mean of all probabilities."""

RULES: tuple[Rule, ...] = ("first", "latest", "mean")
OPENERS = 16
"""Headers read at a time: reading those of remote files is mostly waiting."""


def plan_mosaic(
    sources: Sequence[SceneSource],
    bundle: Bundle,
    options: InferenceOptions | None = None,
    *,
    rule: Rule = "first",
    target_crs: str | None = None,
) -> Plan:
    """Open scenes for a model, put them on one grid and lay chips over it; reads headers, and levels like one scene.

    Scenes that are sheets of one grid give what one file of them all would. Others are warped to the mosaic's grid.

    Args:
        sources: The scenes; under `first` an earlier one lies over a later one.
        bundle: The model.
        options: See `InferenceOptions`. `bands` and `crs` apply to scenes whose source does not give them; `grid`
            chooses between the model's GSD and that of the finest scene; the mosaic reaches no further than `aoi`.
        rule: What counts where scenes overlap: `first`, `latest` (by datetime), `mean` (of the probabilities).
        target_crs: CRS of the mosaic. Else that of the first scene if it is projected, else its UTM zone.

    Raises:
        MissingDatetimeError: If a scene has no datetime and the rule is `latest`.
        MissingCRSError: If a scene has no CRS.
        SceneMismatchError: If scenes differ in what the model takes as it is, or have no place in the CRS.
        UsageError: If the mosaic would be absurdly large.
        GeosegError: If a scene, bands or AOI do not fit.
    """
    if not sources:
        raise UsageError("No scene was named for the mosaic. Name rasters, folders or a manifest.")
    options = options or InferenceOptions()
    check_chips(bundle.spec, options)
    ranked, spec = rank(sources, rule), bundle.spec
    wanted_crs = parse_crs(target_crs, "target_crs") if target_crs is not None else None

    def open_one(source: SceneSource) -> Scene:
        """Open a scene with its own pixels, the model's bands and levels."""
        own = pixels_with_data(source, options.nodata, options.alpha)
        scene = open_scene(source.paths, crs=_missing_crs(source, options.crs), **own)
        return fit_scene(replace(scene, name=source.name), spec, bands=source.bands or options.bands, grid="scene")

    with ThreadPoolExecutor(OPENERS, thread_name_prefix="geoseg-open") as pool:
        opened = list(pool.map(open_one, sources))
    named = {scene.name: scene for scene in opened}
    order = [named[source.name] for source in ranked]
    scene = _as_one(ranked, order, spec, rule, options, wanted_crs)
    if scene is not None:
        covered = sheet_windows([sheet.native for sheet in opened], scene.grid)
        area = read_aoi(options.aoi, scene.grid, where=options.aoi_where) if options.aoi is not None else None
    else:
        frame = choose_grid(opened, crs=wanted_crs, gsd_m=spec.gsd_m if options.grid == "model" else None)
        frame, area = _clip(frame, options)
        for one in opened:
            check_shift(f"scene {one.name}", one.native.crs, frame)
        scene = compose(order, check_size(frame, opened), mean=rule == "mean")
        covered = tuple(part.window for part in scene.parts)
    plan = lay_chips(scene, area, bundle, options)
    return replace(plan, covered=covered) if len(sources) > 1 else plan


def rank(sources: Sequence[SceneSource], rule: Rule) -> list[SceneSource]:
    """Return scenes in the order in which they lie over each other, the uppermost first.

    Raises:
        MissingDatetimeError: If the newest is wanted and a scene has no datetime.
        UsageError: If the rule is unknown.
    """
    if rule not in RULES:
        raise UsageError(f"The rule {rule} for overlaps is unknown. Choose one of {', '.join(RULES)}.")
    if rule != "latest":
        return list(sources)
    missing = [source.name for source in sources if source.datetime is None]
    if missing:
        raise MissingDatetimeError(
            f"Scenes without a datetime: {len(missing)} of {len(sources)} ({name_some(missing, most=5)}). "
            "The latest is not known without it. Give it in a manifest's column `datetime` or a STAC item, or "
            "choose the rule first or mean."
        )

    def seconds(source: SceneSource) -> float:
        """Return seconds since 1970; without a time zone it counts as UTC."""
        moment = source.datetime
        assert moment is not None
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()

    return sorted(sources, key=seconds, reverse=True)


def _missing_crs(source: SceneSource, crs: str | None) -> str | None:
    """Return the CRS given for a source, or for all, if its file has no CRS of its own."""
    given = source.crs or crs
    if given is None:
        return None
    try:
        path = source.paths[0]
        with gdal_env([path]), allow_no_georeference(), open_raster(path) as src:
            return given if placed_crs(src.crs) is None else None
    except GDAL_ERRORS:  # a folder, or not a raster: open_scene reports it
        return given


def _as_one(
    sources: Sequence[SceneSource],
    scenes: Sequence[Scene],
    spec: ModelSpec,
    rule: Rule,
    options: InferenceOptions,
    target_crs: CRS | None,
) -> Scene | None:
    """Return sheets of one grid as one scene; None if they are not sheets of one grid."""
    first, grids, crs = sources[0], [scene.native for scene in scenes], options.crs
    own = pixels_with_data(first, options.nodata, options.alpha)
    told = [(s.bands, s.crs or crs, pixels_with_data(s, options.nodata, options.alpha)) for s in sources]
    plain = all(facts == told[0] for facts in told)
    wants_other = target_crs is not None and target_crs != grids[0].crs
    if wants_other or not plain or not shares_lattice(grids) or (rule == "mean" and overlap(grids)):
        return None
    files = [path for source in reversed(sources) for path in source.paths]  # a later file lies over an earlier one
    try:
        scene = open_scene(files, crs=_missing_crs(first, options.crs), **own)
    except SceneMismatchError:
        return None
    name = first.name if len(sources) == 1 else "mosaic"
    return fit_scene(replace(scene, name=name), spec, bands=first.bands or options.bands, grid=options.grid)


def _clip(grid: Grid, options: InferenceOptions) -> tuple[Grid, AOI | None]:
    """Return the grid as far as the area reaches, and the area on it."""
    if options.aoi is None:
        return grid, None
    area = read_aoi(options.aoi, grid, where=options.aoi_where)
    polygons = area.polygons
    left, top, right, bottom = polygons.bounds
    col, row = math.floor(left), math.floor(top)
    around = Window(row, col, max(1, math.ceil(bottom) - row), max(1, math.ceil(right) - col))
    window = around.intersect(grid.window)
    assert window is not None, "the area touches the grid"
    moved = shapely.transform(polygons, lambda xy: xy - (window.col, window.row))
    return crop_grid(grid, window), replace(area, polygons=moved)
