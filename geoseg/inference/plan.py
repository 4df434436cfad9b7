"""What is to be predicted, decided before any pixel is read: bands, grid, chips. All of it pickles as its recipe."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral
from typing import Any, Literal, get_args

from geoseg.bundle import MAX_CHIP_PX, Bundle, ModelSpec, load_bundle
from geoseg.engines import DihedralEngine, Engine, choose_precision, load_engine
from geoseg.errors import BandMismatchError, UsageError
from geoseg.grid import Block, Lattice, Window, fit_lattice
from geoseg.inference.aoi import AOI, Area, read_aoi
from geoseg.mosaic import MAX_PIXELS, Composite, find_meeting
from geoseg.scene import Paths, Scene, absolute_path, data_windows, open_scene

log = logging.getLogger(__name__)

GridChoice = Literal["model", "scene"]
"""`model` resamples a scene to the model's GSD; `scene` keeps the scene's own pixels."""

ViewChoice = Literal["d4"]
"""The views of a chip whose predictions are averaged: `d4` are the four rotations of it and of its mirror image."""

COARSE_FACTOR = 3.0
"""A scene whose pixels are this many times larger than the model's gets a warning."""

RANGE_FACTOR = 4
"""By how much the value that counts as 1 in a model may differ from 255 where pixels are 8-bit."""

BLOCK_PX = 2048
"""Largest block by default: its pixels, probabilities and polygons take about 100 MB per thread."""

BLOCK_VALUES = 4 * BLOCK_PX**2
"""Most probabilities in one block by default (64 MB): more than four channels make blocks smaller."""

APART = ("edge", "contact")
"""Auxiliary channels that tell buildings apart: a pixel of either is not inside a building; others are ignored."""

BLOCKS_PER_THREAD = 4
"""A small scene is cut into at least this many blocks per thread, so that every core has work until the end."""


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """How a worker gets its engine: loaded once per process, at the first chip."""

    model: str
    chip_shape: tuple[int, int]
    device: str = "auto"
    threads: int | None = None
    precision: str = "f32"
    tta: ViewChoice | None = None

    def open(self) -> Engine:
        """Return this process's engine."""
        with _opening:
            if self.tta is None:
                return _open_engine(self)
            plain = replace(self, tta=None)
            return DihedralEngine(_open_engine(plain), _open_engine(replace(plain, chip_shape=self.chip_shape[::-1])))


_opening = threading.Lock()


@lru_cache(maxsize=2)
def _open_engine(recipe: EngineRecipe) -> Engine:
    bundle = load_bundle(recipe.model)
    device, threads, precision = recipe.device, recipe.threads, recipe.precision
    return load_engine(bundle, chip_shape=recipe.chip_shape, device=device, threads=threads, precision=precision)


@dataclass(frozen=True, slots=True)
class Plan:
    """A scene, the chips over it, and what runs on them.

    Attributes:
        scene: The scene on its working grid, with the model's bands and levels.
        lattice: The chips.
        engine: A recipe, or an engine itself where it is small (the fakes).
        channel: Class whose probability is kept: the target.
        aoi: The area asked for; None is everywhere.
        blend: Blend neighboring chips over their halos instead of cutting at the core's border.
        classes: Names of the engine's classes, in the order of its channels.
        covered: Windows outside which nothing is valid: where a mosaic's scenes lie, or what `data_windows` found; none
            where that is unknown.
        auxiliary: Names of the engine's channels after those of the classes.
    """

    scene: Scene
    lattice: Lattice
    engine: EngineRecipe | Engine
    channel: int = 0
    aoi: AOI | None = None
    blend: bool = False
    classes: tuple[str, ...] = ("building",)
    covered: tuple[Window, ...] = ()
    auxiliary: tuple[str, ...] = ()

    def absolute(self) -> "Plan":
        """Return the plan with absolute paths, for workers whose working folder is another."""
        engine = self.engine
        if isinstance(engine, EngineRecipe):
            engine = replace(engine, model=absolute_path(engine.model))
        return replace(self, scene=self.scene.absolute(), engine=engine)

    @property
    def precision(self) -> str:
        """What the engine computes in."""
        return self.engine.precision if isinstance(self.engine, EngineRecipe) else "f32"

    def in_precision(self, precision: str) -> "Plan":
        """Return the plan with an engine that computes in another precision."""
        if not isinstance(self.engine, EngineRecipe) or precision == self.precision:
            return self
        return replace(self, engine=replace(self.engine, precision=precision))

    @property
    def has_class_raster(self) -> bool:
        """True where the likeliest class is kept: one class or two are told apart by the target's probability."""
        return len(self.classes) > 2

    @property
    def apart(self) -> tuple[int, ...]:
        """Channels of the engine that tell buildings apart: `edge` and `contact`, in this order, where it has them."""
        return tuple(len(self.classes) + self.auxiliary.index(name) for name in APART if name in self.auxiliary)

    @property
    def has_interior(self) -> bool:
        """True where the probability is kept that a pixel lies inside a building."""
        return len(self.apart) > 0

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the engine that are stitched: the target's or, for the likeliest class, all classes; `apart`."""
        classes = range(len(self.classes)) if self.has_class_raster else (self.channel,)
        return (*classes, *self.apart)

    @property
    def raster_count(self) -> int:
        """Number of rasters in a result: probability, mask, and those of classes and interior where it has them."""
        return 2 + self.has_class_raster + self.has_interior

    def blocks(self, block_px: int) -> list[Block]:
        """Return the blocks that share ground with the AOI and with what is covered."""
        blocks = self.lattice.plan_blocks(block_px)
        if self.covered:
            met = find_meeting([b.window for b in blocks], self.covered)
            blocks = [b for b, is_met in zip(blocks, met, strict=True) if is_met]
        return [b for b in blocks if self.aoi is None or self.aoi.touches(b.window)]

    def passes(self, window: Window) -> tuple[Scene, ...]:
        """Return what goes through the network for a window: the scene, or a mosaic once for each scene in it."""
        return self.scene.passes(window) if isinstance(self.scene, Composite) else (self.scene,)

    def choose_block_px(self, threads: int) -> int:
        """Return a block size that keeps `threads` busy and memory flat; the results do not depend on it."""
        block_px, smallest = BLOCK_PX, max(self.lattice.core)
        while block_px > smallest and block_px**2 * len(self.channels) > BLOCK_VALUES:
            block_px //= 2
        while block_px > smallest and len(self.blocks(block_px)) < BLOCKS_PER_THREAD * threads:
            block_px //= 2
        return block_px

    def open_engine(self) -> Engine:
        """Return the engine of this process."""
        return self.engine.open() if isinstance(self.engine, EngineRecipe) else self.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """What a caller may choose for inference, made once and passed whole.

    Attributes:
        bands: One-based bands of the scene, one for each of the model's, in its order.
        crs: CRS of a scene that has none.
        nodata: Nodata value that counts instead of the scene's own.
        alpha: True if a band marked alpha is a mask, False if it is an image; found out by default.
        grid: `model` resamples to the model's GSD; `scene` keeps the scene's own pixels.
        aoi: The area asked for: a vector file in any CRS, or a GeoDataFrame, or a geometry in the scene's CRS.
        aoi_where: OGR attribute filter on a file, such as `split = 'test'`.
        blend: Blend chips over their halos.
        device: `auto`, `cpu`, `cuda` or `mps`; see `geoseg.engines.choose_device`.
        precision: `auto`, `f32`, `bf16` or `f16`; see `geoseg.engines.choose_precision` and `load_engine`.
        threads: CPU threads in all.
        chip_px: Another chip size than the model's.
        halo_px: Another halo than the model's.
        tta: `d4` averages the predictions of the eight views of each chip; takes eight times as long.
    """

    bands: Sequence[int] | None = None
    crs: str | None = None
    nodata: float | None = None
    alpha: bool | None = None
    grid: GridChoice = "model"
    aoi: Area | None = None
    aoi_where: str | None = None
    blend: bool = False
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    chip_px: int | None = None
    halo_px: int | None = None
    tta: ViewChoice | None = None

    def __post_init__(self) -> None:
        """Check the numbers of the bands and the views."""
        if self.tta not in (None, *get_args(ViewChoice)):
            raise UsageError(f"`tta={self.tta!r}` is unknown. Choose d4, or omit `tta`.")
        bands: Any = self.bands
        if bands is None or (not isinstance(bands, str) and len(bands) and all(_is_band(band) for band in bands)):
            return
        given = bands if isinstance(bands, str) else ",".join(map(str, bands))
        raise UsageError(
            f"`bands={given}` is not a list of band numbers, which count from 1. Give one for each of the model's "
            "bands, in its order, such as 1,2,3 (in Python, [1, 2, 3])."
        )


def _is_band(band: object) -> bool:
    return isinstance(band, Integral) and int(band) >= 1


def check_options(
    *,
    threshold: float | None = None,
    threads: int | None = None,
    aoi: Area | None = None,
    aoi_where: str | None = None,
) -> None:
    """Check the options that runs, evaluations and fine-tuning have in common.

    Raises:
        UsageError: If one cannot be used.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(
            f"`threshold={threshold}` is not a number above 0 and below 1. Give a probability, such as 0.5."
        )
    if threads is not None and threads < 1:
        raise UsageError(f"`threads={threads}` is below 1. Give a number of threads.")
    if aoi_where is not None and aoi is None:
        raise UsageError("`aoi_where` chooses features of `aoi`, which is not given. Give both.")


def plan_inference(paths: Paths, bundle: Bundle, options: InferenceOptions | None = None) -> Plan:
    """Open a scene for a model and lay chips over it; reads headers only, and levels where pixels are not 8-bit.

    Args:
        paths: See `geoseg.scene.open_scene`.
        bundle: The model.
        options: See `InferenceOptions`.

    Raises:
        GeosegError: If scene, bands or AOI do not fit.
    """
    options = options or InferenceOptions()
    check_chips(bundle.spec, options)
    scene = open_scene(paths, crs=options.crs, nodata=options.nodata, alpha=options.alpha)
    scene = fit_scene(scene, bundle.spec, bands=options.bands, grid=options.grid)
    check_pixels(scene)
    area = read_aoi(options.aoi, scene.grid, where=options.aoi_where) if options.aoi is not None else None
    return lay_chips(scene, area, bundle, options)


def check_pixels(scene: Scene) -> None:
    """Refuse a scene of more pixels than results can have, such as a tile service of the whole Earth.

    Raises:
        UsageError: If it is one.
    """
    height, width = scene.grid.shape
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"{scene.name} would have {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are accepted, with an AOI "
            "too, as results have the extent of their scene. Cut your area out of it, which copies no pixels: "
            f"`gdal_translate -of VRT -projwin WEST NORTH EAST SOUTH {scene.paths[0]} area.vrt`, and run that."
        )


def check_chips(spec: ModelSpec, options: InferenceOptions) -> tuple[int, int]:
    """Return side and halo of a chip in pixels: those of the options, else the model's.

    Raises:
        UsageError: If the halo leaves nothing of a chip, or chips do not fit the network or the memory.
    """
    chip = spec.chip_px if options.chip_px is None else options.chip_px
    halo = spec.halo_px if options.halo_px is None else options.halo_px
    if halo < 0 or chip <= 2 * halo:
        raise UsageError(f"Chips of {chip} px with a halo of {halo} px on every side have no core. Make them larger.")
    if chip > MAX_CHIP_PX:
        raise UsageError(f"Chips of {chip:,} px do not fit into memory. Make them {MAX_CHIP_PX:,} px or smaller.")
    if chip % spec.stride_px:
        raise UsageError(f"Chips of {chip} px do not fit the network. Give a multiple of {spec.stride_px}.")
    return chip, halo


def lay_chips(scene: Scene, area: AOI | None, bundle: Bundle, options: InferenceOptions) -> Plan:
    """Lay a model's chips over a scene that fits it."""
    spec, (chip, halo) = bundle.spec, check_chips(bundle.spec, options)
    lattice = fit_lattice(scene.grid.shape, chip_px=chip, halo_px=halo, multiple_px=spec.stride_px)
    device, precision = _choose_computing(scene, bundle, options)
    engine = EngineRecipe(str(bundle.path), lattice.chip_shape, device, options.threads, precision, options.tta)
    covered = () if isinstance(scene, Composite) else data_windows(scene)
    return Plan(scene, lattice, engine, spec.target_index, area, options.blend, spec.classes, covered, spec.auxiliary)


def _choose_computing(scene: Scene, bundle: Bundle, options: InferenceOptions) -> tuple[str, str]:
    """Return device and precision; with bf16 that was chosen for this processor, no worker uses a GPU instead."""
    pixels = {part.scene.dtype for part in scene.parts} if isinstance(scene, Composite) else {scene.dtype}
    is_8bit = pixels == {"uint8"} and bundle.spec.pixel_max == 255
    precision = choose_precision(options.precision, device=options.device, model_format=bundle.format, is_8bit=is_8bit)
    if options.precision != "auto" or precision == "f32":
        return options.device, precision
    log.info("Computing in %s on the CPU; `precision='f32'` is slower and a little more exact", precision)
    return "cpu", precision


def fit_scene(
    scene: Scene, spec: ModelSpec, *, bands: Sequence[int] | None = None, grid: GridChoice = "model"
) -> Scene:
    """Return the scene with a model's bands, range of pixel values and grid.

    The rule for bands: `bands` if given; else red, green and blue as the file marks them, then its other bands in their
    order, never alpha. A single band is used for all of the model's (a panchromatic scene). Bands beyond the model's
    number are left out.

    Args:
        scene: The scene as it was opened.
        spec: The model's specification.
        bands: One-based bands to use.
        grid: `model` for the model's GSD, `scene` for the scene's own pixels.

    Raises:
        BandMismatchError: If the scene's bands do not fit the model.
    """
    scene = scene.with_bands(choose_bands(scene, spec, bands))
    if spec.pixel_max == 255:
        scene = scene.with_levels()
        if scene.levels:
            levels = ", ".join(f"{low:.6g}-{high:.6g}" for low, high in scene.levels)
            log.info("%s pixels are stretched to 8 bits, per band: %s", scene.dtype, levels)
    else:
        _warn_of_range(scene, spec)
    if not scene.levels:
        scene.warn_of_collar()
    gsd_m = scene.native.gsd_m
    if gsd_m and max(gsd_m) > COARSE_FACTOR * spec.gsd_m:
        message = "%s has pixels of %.2g m; the model %s was trained at %.2g m and may see too little."
        log.warning(message, scene.name, max(gsd_m), spec.name, spec.gsd_m)
    return scene.at_gsd(spec.gsd_m) if grid == "model" else scene


def _warn_of_range(scene: Scene, spec: ModelSpec) -> None:
    """Warn of 8-bit pixels where a model was trained on another range of values, such as that of 16 bits."""
    if scene.dtype == "uint8" and not 1 / RANGE_FACTOR <= spec.pixel_max / 255 <= RANGE_FACTOR:
        log.warning(
            "%s has 8-bit pixels, from 0 to 255; the model %s was trained on values from 0 to %g and cannot work with "
            "them. Give the imagery with the values that it was trained on, or a model for 8 bits.",
            *(scene.name, spec.name, spec.pixel_max),
        )


def choose_bands(scene: Scene, spec: ModelSpec, bands: Sequence[int] | None) -> tuple[int, ...]:
    """Return the scene's band for each of the model's."""
    wanted, found = len(spec.bands), tuple(bands) if bands else scene.bands
    if not bands and wanted > len(found):
        found = scene.data_bands if len(scene.data_bands) >= wanted else found
    if len(found) == 1 and wanted > 1:
        log.warning("One band is used as %s of the model %s.", ", ".join(spec.bands), spec.name)
        return found * wanted
    if len(found) < wanted or (bands and len(found) != wanted):
        raise BandMismatchError(
            f"{scene.name} gives {len(found)} bands ({', '.join(map(str, found))} of {scene.band_count}); the model "
            f"{spec.name} wants {wanted}: {', '.join(spec.bands)}. Name them in this order with `bands`, such as "
            f"{','.join(map(str, range(1, wanted + 1)))}, or give one band for all."
        )
    return found[:wanted]
