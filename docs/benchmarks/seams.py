"""How much a probability steps where two chips meet, by chip size and halo: python docs/benchmarks/seams.py SCENE.

A step is the mean absolute difference between neighboring pixels, in points of probability (1 = 1 %). It is taken on
the lines where cores meet and on the lines 4 to 16 pixels beside them, which see the same buildings; their ratio is 1
where a border cannot be told from the inside. The cost is the number of pixels that go through the network per pixel of
the scene.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.bundle import load_bundle
from geoseg.engines import Engine
from geoseg.grid import Lattice, Window, fit_lattice
from geoseg.inference import AOI, NODATA, InferenceOptions, Plan, plan_inference, predict_block

BLOCK_PX = 4096
BESIDE = (4, 16)
"""Distances from a border, pixels, of the lines that it is compared with."""


@dataclass(frozen=True, slots=True)
class PoolingEngine:
    """The worst a network that pools over its whole chip can do: every pixel gets the chip's mean brightness."""

    name: str = "pooling"
    batch_size: int = 1
    threads: int = 1

    def predict(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return `(n, 1, y, x)` probabilities, constant in each chip."""
        mean = chips.mean(axis=(1, 2, 3), dtype=np.float32) / 255
        return np.broadcast_to(mean[:, None, None, None], (len(chips), 1, *chips.shape[2:])).copy()


@dataclass(frozen=True, slots=True)
class Steps:
    """Mean steps in points of probability, on the lines between cores and beside them; pixels computed per pixel."""

    border: float
    inside: float
    cost: float


def measure_steps(plan: Plan, window: Window) -> Steps:
    """Predict a window and measure its steps along both axes."""
    probability = predict_window(plan, window)
    border, inside = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(probability, axis=axis))
        first = (window.row, window.col)[axis]
        core = plan.lattice.core[axis]
        beyond = (np.arange(steps.shape[axis]) + first + 1) % core
        distance = np.minimum(beyond, core - beyond)
        border.append(np.compress(distance == 0, steps, axis=axis).ravel())
        inside.append(np.compress((distance >= BESIDE[0]) & (distance <= BESIDE[1]), steps, axis=axis).ravel())
    return Steps(*(float(np.nanmean(np.concatenate(part))) * 100 for part in (border, inside)), cost_of(plan.lattice))


def predict_window(plan: Plan, window: Window) -> NDArray[np.float32]:
    """Return `(y, x)` probabilities of a window, NaN where there is nodata."""
    out = np.full(plan.scene.grid.shape, NODATA, np.uint8)
    for block in plan.blocks(BLOCK_PX):
        out[block.window.slices] = predict_block(plan, block).probability
    cut = out[window.slices]
    return np.where(cut == NODATA, np.nan, cut / np.float32(254)).astype(np.float32)


def cost_of(lattice: Lattice) -> float:
    """Return the pixels computed per pixel of the scene."""
    chips, shape = np.prod(lattice.counts), np.prod(lattice.chip_shape)
    return float(chips * shape / np.prod(lattice.shape))


def plan_for(
    scene: Path, model: str, window: Window, *, chip_px: int, halo_px: int, blend: bool, engine: Engine | None
) -> Plan:
    """Plan one variant, limited to a window."""
    import shapely

    bundle = load_bundle(model)
    base = plan_inference(
        [scene], bundle, InferenceOptions(chip_px=chip_px, halo_px=halo_px, blend=blend, precision="f32")
    )
    lattice = fit_lattice(base.scene.grid.shape, chip_px=chip_px, halo_px=halo_px, multiple_px=bundle.spec.stride_px)
    area = AOI(shapely.box(window.cols.start, window.rows.start, window.cols.stop, window.rows.stop))
    return Plan(base.scene, lattice, engine or base.engine, base.channel, area, blend, base.classes)


def main() -> None:
    """Print one row per chip size and halo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", default="buildings-30cm")
    parser.add_argument(
        "--window", type=int, nargs=4, metavar=("ROW", "COL", "HEIGHT", "WIDTH"), default=[0, 0, 1024, 1024]
    )
    parser.add_argument("--chips", type=int, nargs="+", default=[512, 768])
    parser.add_argument("--halos", type=int, nargs="+", default=[0, 16, 32, 48, 64, 96])
    args = parser.parse_args()
    window = Window(*args.window)
    print("| network | chip px | halo px | blend | step at borders | step inside | ratio | computed px per px |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    cases = [
        (args.model, None, chip, halo, blend)
        for chip in args.chips
        for halo in args.halos
        for blend in (False, halo > 0)
    ]
    cases = list(dict.fromkeys(cases))
    cases += [("chip mean", PoolingEngine(), 512, 64, blend) for blend in (False, True)]
    for name, engine, chip, halo, blend in cases:
        plan = plan_for(args.scene, args.model, window, chip_px=chip, halo_px=halo, blend=blend, engine=engine)
        steps = measure_steps(plan, window)
        ratio = steps.border / steps.inside if steps.inside else float("inf")
        print(
            f"| {name} | {chip} | {halo} | {'yes' if blend else 'no'} | {steps.border:.2f} | {steps.inside:.2f} "
            f"| {ratio:.2f} | {steps.cost:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
