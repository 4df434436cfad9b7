"""Chips per second of the CPU engine by streams and threads, and of torch: python docs/benchmarks/engine.py.

Every variant computes the same chips in one run, in turns, so that a busy machine touches all of them alike; the figure
is the best turn.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from geoseg.bundle import load_bundle
from geoseg.engines import Engine, usable_cores
from geoseg.engines.openvino import OpenVINOEngine
from geoseg.engines.torch import TorchEngine

TURNS = 3


def megapixels_per_second(engine: Engine, chips: np.ndarray, callers: int) -> float:
    """Run all chips with a number of calling threads."""
    start = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(lambda chip: engine.predict(chip[None]), chips))
    return chips[:, 0].size / 1e6 / (time.perf_counter() - start)


def main() -> None:
    """Print one row per variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="buildings-30cm")
    parser.add_argument("--chip", type=int, default=512)
    parser.add_argument("--chips", type=int, default=12)
    args = parser.parse_args()
    cores, bundle = usable_cores(), load_bundle(args.model)
    chips = np.random.default_rng(0).integers(0, 256, (args.chips, 3, args.chip, args.chip), np.uint8)
    shape = (args.chip, args.chip)
    variants: dict[str, tuple[Engine, int]] = {
        f"OpenVINO, {cores} streams of one thread": (OpenVINOEngine.load(bundle, chip_shape=shape), cores),
        f"OpenVINO, one stream of {cores} threads": (OpenVINOEngine.load(bundle, chip_shape=shape, streams=1), 1),
        "OpenVINO, one stream of one thread": (OpenVINOEngine.load(bundle, chip_shape=shape, threads=1), 1),
        f"torch, channels last, {cores} threads": (TorchEngine.load(bundle, device="cpu", threads=cores), 1),
    }
    best = dict.fromkeys(variants, 0.0)
    for engine, _ in variants.values():
        engine.predict(chips[:1])
    for _ in range(TURNS):
        for name, (engine, callers) in variants.items():
            best[name] = max(best[name], megapixels_per_second(engine, chips, callers))
    reference = max(best.values())
    print(f"| engine on {cores} cores, chips of {args.chip} px | Mpx/s | of the best |\n| --- | --- | --- |")
    for name, speed in best.items():
        print(f"| {name} | {speed:.2f} | {speed / reference:.2f} |")


if __name__ == "__main__":
    main()
