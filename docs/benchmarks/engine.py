"""Speed of the CPU engine: by streams and threads, and of torch; by chip size and precision.

    python docs/benchmarks/engine.py                                      # streams and threads
    python docs/benchmarks/engine.py --sizes 512,768,1024,1536,2048,3072  # chip sizes, in every precision

Every variant computes as many pixels in one run, in turns, so that a busy machine touches all of them alike; the
ratios to the first variant are medians over the turns, of wall time and of processor time, on which other programs have
less influence. With --sizes the pixels that are kept count, without the
halos, so that chip sizes can be compared.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from geoseg.bundle import Bundle, load_bundle
from geoseg.engines import Engine, native_precisions, usable_cores
from geoseg.engines.openvino import OpenVINOEngine
from geoseg.engines.torch import TorchEngine


@dataclass(frozen=True, slots=True)
class Variant:
    """What is measured: an engine, its precision, the side of its chips, the threads that call it, the halo."""

    name: str
    precision: str
    chip_px: int
    engine: Engine
    callers: int
    halo_px: int = 0

    def measure(self, pixels: int) -> tuple[float, float]:
        """Run about so many pixels, at least a chip per caller; return Mpx per second of wall and of processor time."""
        count = max(self.callers, round(pixels / self.chip_px**2 / self.callers) * self.callers)
        shape = (count, 1, 3, self.chip_px, self.chip_px)
        chips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        start, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(self.callers) as pool:
            list(pool.map(self.engine.predict, chips))
        kept = count * (self.chip_px - 2 * self.halo_px) ** 2 / 1e6
        return kept / (time.perf_counter() - start), kept / (time.process_time() - cpu)


def by_threads(bundle: Bundle, side: int) -> list[Variant]:
    """Return the ways of using the cores."""
    cores = usable_cores()

    def openvino(name: str, callers: int, **options: Any) -> Variant:
        engine = OpenVINOEngine.load(bundle, chip_shape=(side, side), **options)
        return Variant(f"OpenVINO, {name}", "f32", side, engine, callers)

    return [
        openvino(f"{cores} streams of one thread", cores),
        openvino(f"one stream of {cores} threads", 1, streams=1),
        openvino("one stream of one thread", 1, threads=1),
        Variant(
            f"torch, channels last, {cores} threads",
            "f32",
            side,
            TorchEngine.load(bundle, device="cpu", threads=cores),
            1,
        ),
    ]


def by_size(bundle: Bundle, sizes: Sequence[int], precisions: Sequence[str]) -> list[Variant]:
    """Return the chip sizes in every precision, the model's size in f32 first."""
    cores, own = usable_cores(), bundle.spec.chip_px
    pairs = [(side, precision) for side in sizes for precision in precisions]
    pairs.sort(key=lambda pair: pair != (own, "f32"))
    return [
        Variant(
            f"OpenVINO, {cores} streams of one thread",
            precision,
            side,
            OpenVINOEngine.load(bundle, chip_shape=(side, side), precision=precision),
            cores,
            bundle.spec.halo_px,
        )
        for side, precision in pairs
    ]


def main() -> None:
    """Print one row per variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="buildings-30cm")
    parser.add_argument("--chip", type=int, default=512)
    parser.add_argument("--sizes", help="sides of chips in pixels, separated by commas")
    parser.add_argument("--precisions", help="such as f32,bf16; with --sizes, by default all that the processor has")
    parser.add_argument("--mpx", type=float, default=3.0, help="megapixels per variant and turn")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    bundle = load_bundle(args.model)
    if args.sizes:
        precisions = args.precisions.split(",") if args.precisions else native_precisions()
        variants = by_size(bundle, [int(side) for side in args.sizes.split(",")], precisions)
    else:
        variants = by_threads(bundle, args.chip)
    for variant in variants:
        variant.measure(1)
    turns = [[variant.measure(int(args.mpx * 1e6)) for variant in variants] for _ in range(args.turns)]
    speed = f"best Mpx/s{f', without halos of {bundle.spec.halo_px} px' if args.sizes else ''}"
    print(f"| engine on {usable_cores()} cores | precision | chip px | {speed} | times the first | processor time |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for index, variant in enumerate(variants):
        speeds = [turn[index] for turn in turns]
        wall, cpu = (median(one[i] / turn[0][i] for one, turn in zip(speeds, turns, strict=True)) for i in (0, 1))
        best = max(speed for speed, _ in speeds)
        print(f"| {variant.name} | {variant.precision} | {variant.chip_px} | {best:.2f} | {wall:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
