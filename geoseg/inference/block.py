"""One block: its chips through the engine, stitched into probabilities of the pixels that it owns."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import PredictionError
from geoseg.grid import Block, Lattice, Window
from geoseg.inference.plan import Plan
from geoseg.mosaic import Composite, CountedMask
from geoseg.scene import Scene

if TYPE_CHECKING:
    from geoseg.datasets import SceneDataset
    from geoseg.engines import Engine

PROBABILITY_ONE = 254
"""Probability 1 as it is stored: value `v` means `v / 254`."""

NODATA = 255


def stored_threshold(threshold: float) -> int:
    """Return the smallest stored value whose probability reaches a threshold in (0, 1)."""
    return math.ceil(threshold * PROBABILITY_ONE)


ROUNDING = 1e-5
"""How far a probability may lie outside 0 to 1 by rounding."""

Probabilities = NDArray[np.float32]
"""`(channel, y, x)` in [0, 1]."""

Predicted = tuple[Probabilities | None, NDArray[np.bool_]]
"""`(channel, y, x)` probabilities of a block, None if nothing in it is valid; the valid mask with a pixel around it."""


@dataclass(slots=True)
class Stopwatch:
    """Seconds per stage of a block, and chips that went through the network."""

    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "network": 0.0, "stitch": 0.0})
    chips: int = 0

    def add(self, stage: str, since: float) -> float:
        """Count the time since `since` for a stage; return now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now


@dataclass(frozen=True, slots=True)
class BlockPixels:
    """What a block predicts.

    Attributes:
        probability: `(y, x)` uint8 of the block's pixels: the target's probability is `v / 254`, 255 where there is
            nodata or no AOI.
        valid: `(y, x)` valid mask of the block's window expanded by one pixel; False beyond the scene.
        watch: Where the time went.
        classes: `(y, x)` uint8: the index of the likeliest class, the lowest of several that are equal, 255 where there
            is nodata or no AOI. None where the model has one class, or two, which the probability tells apart.
        interior: `(y, x)` uint8: the probability that a pixel lies inside a building, away from its edge and from other
            buildings, stored like `probability`. None where the model has neither an `edge` nor a `contact` channel.
        is_empty: True where it is known that all of it is nodata.
    """

    probability: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    watch: Stopwatch
    classes: NDArray[np.uint8] | None = None
    interior: NDArray[np.uint8] | None = None
    is_empty: bool = False


def predict_block(plan: Plan, block: Block) -> BlockPixels:
    """Predict the pixels of one block; they do not depend on how the scene was cut into blocks.

    The interior is `f (1 - edge) (1 - contact)`, where `f` is the target's probability: each of the factors is blended,
    or averaged over a mosaic's scenes, before they are multiplied.

    Memory is that of the block: its pixels with their halos, and a float32 per pixel and channel of `plan.channels`.
    """
    watch, passes = Stopwatch(), plan.passes(block.window.expand(1))
    stitched, valid = mean_of_passes(passes, lambda scene: _predict_pass(plan, scene, block, watch))
    inside = valid[1:-1, 1:-1]
    if stitched is None:
        empty = np.broadcast_to(np.uint8(NODATA), inside.shape)
        classes, interior = (empty if has else None for has in (plan.has_class_raster, plan.has_interior))
        return BlockPixels(empty, valid, watch, classes, interior, is_empty=True)
    target = stitched[plan.channels.index(plan.channel)]
    classes = _where(inside, stitched[: len(plan.classes)].argmax(axis=0)) if plan.has_class_raster else None
    target *= PROBABILITY_ONE  # in place: the probabilities are not needed any more
    inner = target
    for channel in stitched[len(stitched) - len(plan.apart) :]:  # one operation per pixel, always in this order
        inner = np.multiply(inner, np.subtract(1, channel, out=channel), out=channel)
    interior = _where(inside, np.round(inner, out=inner)) if plan.has_interior else None
    probability = _where(inside, np.round(target, out=target))
    return BlockPixels(probability, valid, watch, classes, interior)


def _where(valid: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.uint8]:
    stored: NDArray[np.uint8] = values.astype(np.uint8)
    if not valid.all():
        stored[~valid] = NODATA
    return stored


def mean_of_passes(passes: Sequence[Scene], predict: Callable[[Scene], Predicted]) -> Predicted:
    """Predict every pass and average the valid probabilities, pixel by pixel, in the order given.

    Every step is one operation per pixel, so neither blocks nor libraries change a result. Where one pass counts, the
    mean is its value.
    """
    if len(passes) == 1:
        return predict(passes[0])
    total: Probabilities | None = None
    count: NDArray[np.float32] = np.zeros((), np.float32)
    valid: NDArray[np.bool_] = np.zeros((), bool)
    for scene in passes:
        stitched, gives = predict(scene)
        valid = valid | gives
        if stitched is not None:
            inside = gives[1:-1, 1:-1]
            stitched *= inside
            total = stitched if total is None else np.add(total, stitched, out=total)
            count = count + inside.astype(np.float32)
    if total is not None:
        total /= np.maximum(count, np.float32(1))
    return total, valid


def _predict_pass(plan: Plan, scene: Scene, block: Block, watch: Stopwatch) -> Predicted:
    """Predict the pixels of one block from one scene, chip by chip, as torchgeo's sampler orders them."""
    from geoseg.datasets import LatticeSampler, SceneDataset

    start = time.perf_counter()
    chips, ring = _chips(plan, block), block.window.expand(1)
    first, last = plan.lattice.chip_window(*chips[0]), plan.lattice.chip_window(*chips[-1])
    row, col = min(first.row, ring.row), min(first.col, ring.col)
    bottom, right = max(last.rows.stop, ring.rows.stop), max(last.cols.stop, ring.cols.stop)
    reach = Window(row, col, bottom - row, right - col)
    dataset = SceneDataset(scene, cached=reach)
    on_top = scene.counted if isinstance(scene, Composite) else None
    mask = dataset if on_top is None else CountedMask(on_top, reach)  # only pixels of the scene on top count
    valid = mask.read_valid(ring)
    if plan.aoi is not None:
        valid = valid & plan.aoi.mask(ring)
    watch.add("read", start)
    if not valid[1:-1, 1:-1].any():
        return None, valid
    stitch = (Blended if plan.blend else Cropped)(plan.lattice, block.window, len(plan.channels))
    engine = plan.open_engine()
    wanted = [chip for chip in chips if _is_wanted(plan, mask, chip)]
    batch: list[NDArray[np.generic]] = []
    for done, query in enumerate(LatticeSampler(dataset, plan.lattice, wanted), 1):
        start = time.perf_counter()
        batch.append(dataset[query]["image"].numpy())
        if len(batch) < engine.batch_size and done < len(wanted):
            watch.add("read", start)
            continue
        pixels = np.stack(batch)
        watch.add("read", start)
        predicted = _predict(engine, pixels, plan, watch)
        start = time.perf_counter()
        for chip, probabilities in zip(wanted[done - len(batch) : done], predicted, strict=True):
            stitch.add(chip, probabilities)
        watch.add("stitch", start)
        watch.chips += len(batch)
        batch = []
    return stitch.result(), valid


def _chips(plan: Plan, block: Block) -> list[tuple[int, int]]:
    """Return the chips that a block needs: its own, and with blending the neighbors whose halo reaches into it."""
    halo = plan.lattice.halo_px if plan.blend else 0
    rows, cols = (
        range(max(0, own.start - math.ceil(halo / core)), min(count, own.stop + math.ceil(halo / core)))
        for own, count, core in zip(
            (block.chip_rows, block.chip_cols), plan.lattice.counts, plan.lattice.core, strict=True
        )
    )
    return [(i, j) for i in rows for j in cols]


def _is_wanted(plan: Plan, mask: "SceneDataset | CountedMask", chip: tuple[int, int]) -> bool:
    """Return True if a chip contributes any pixel that is valid and inside the AOI.

    A chip that contributes no valid pixel is left out of every block, so blending stays a function of the scene alone.
    """
    core = plan.lattice.core_window(*chip)
    gives = core.expand(plan.lattice.halo_px).intersect(plan.scene.grid.window) if plan.blend else core
    assert gives is not None
    wanted = plan.aoi is None or plan.aoi.touches(gives)
    return wanted and bool(mask.read_valid(gives).any())


def _predict(engine: "Engine", pixels: NDArray[Any], plan: Plan, watch: Stopwatch) -> NDArray[np.float32]:
    """Return the plan's channels of a batch's probabilities, `(n, channel, y, x)`.

    Raises:
        PredictionError: If they have another shape than the chips and channels, or are not numbers from 0 to 1.
    """
    with engine_semaphore(engine) as waited:
        start = time.perf_counter()
        found = engine.predict(pixels)
    count = len(plan.classes) + len(plan.auxiliary)
    if found.shape != (len(pixels), count, *pixels.shape[2:]):
        raise PredictionError(
            f"{engine.name} gave an array of {found.shape} for chips of {pixels.shape}; expected (n, channel, y, x) "
            f"with {count} channels ({', '.join((*plan.classes, *plan.auxiliary))}). The model does not fit its "
            "specification: export or train it again."
        )
    probabilities = found if len(plan.channels) == count else found[:, list(plan.channels)]
    if not (probabilities.min() >= -ROUNDING and probabilities.max() <= 1 + ROUNDING):  # NaN is refused too
        raise PredictionError(
            f"{engine.name} gave values from {probabilities.min()} to {probabilities.max()}; probabilities lie in 0 to "
            "1. The weights are damaged or overflow: train the model again."
        )
    watch.add("network", start)
    if waited:
        watch.seconds["wait"] = watch.seconds.get("wait", 0.0) + waited
    return probabilities


@contextmanager
def engine_semaphore(engine: "Engine") -> Iterator[float]:
    """Limit the threads of this process that predict at the same time to `engine.threads`; the others read meanwhile.

    Yields:
        Seconds waited; 0 where there was room.
    """
    semaphore = _semaphore_of(engine.name, engine.threads)
    waited = 0.0
    if not semaphore.acquire(blocking=False):
        start = time.perf_counter()
        semaphore.acquire()
        waited = time.perf_counter() - start
    try:
        yield waited
    finally:
        semaphore.release()


@lru_cache(maxsize=16)
def _semaphore_of(name: str, threads: int) -> Semaphore:
    """Return the semaphore of an engine, by name: small engines are pickled with every task and so are many objects."""
    return Semaphore(max(1, threads))


class Cropped:
    """Every pixel from the one chip that owns it."""

    def __init__(self, lattice: Lattice, window: Window, channels: int) -> None:
        """Allocate `channels` channels of a window."""
        self.lattice, self.window = lattice, window
        self.out = np.zeros((channels, *window.shape), np.float32)

    def add(self, chip: tuple[int, int], probabilities: Probabilities) -> None:
        """Keep the core of a chip."""
        core, halo = self.lattice.core_window(*chip), self.lattice.halo_px
        own = probabilities[:, halo : halo + core.height, halo : halo + core.width]
        self.out[:, *core.relative_to(self.window).slices] = own

    def result(self) -> Probabilities:
        """Return the cores side by side."""
        return self.out


class Blended:
    """Every pixel from the chips that see it, weighted by a ramp over the halos that adds up to one."""

    def __init__(self, lattice: Lattice, window: Window, channels: int) -> None:
        """Allocate `channels` channels of a window."""
        self.lattice, self.window = lattice, window
        self.out = np.zeros((channels, *window.shape), np.float32)
        self.weight = np.zeros(window.shape, np.float32)

    def add(self, chip: tuple[int, int], probabilities: Probabilities) -> None:
        """Add what a chip sees of the window."""
        seen = self.lattice.chip_window(*chip)
        here = seen.intersect(self.window)
        if here is None:
            return
        ramps = [_ramp(self.lattice, chip[axis], axis) for axis in (0, 1)]
        part, place = here.relative_to(seen), here.relative_to(self.window).slices
        weight = ramps[0][part.rows, None] * ramps[1][None, part.cols]
        self.out[:, *place] += weight * probabilities[:, *part.slices]
        self.weight[place] += weight

    def result(self) -> Probabilities:
        """Return the weighted mean, in the place of the sums."""
        self.out /= np.maximum(self.weight, np.float32(1e-6))
        return self.out


def _ramp(lattice: Lattice, index: int, axis: int) -> NDArray[np.float32]:
    """Return a chip's weights along one axis: a ramp over two halos at each inner border, 1 at the scene's border."""
    size, core, halo = lattice.chip_shape[axis], lattice.core[axis], lattice.halo_px
    if halo == 0:
        return np.ones(size, np.float32)
    rise = np.clip((np.arange(size) + 0.5) / (2 * halo), 0, 1)
    fall = np.clip((size - np.arange(size) - 0.5) / (2 * halo), 0, 1)
    is_first, is_last = index == 0, (index + 1) * core >= lattice.shape[axis]
    return (np.where(is_first, 1, rise) * np.where(is_last, 1, fall)).astype(np.float32)
