"""What the channels edge and contact cost: python docs/benchmarks/channels.py.

A network with one channel and the same with three compute the same chips and the same block on OpenVINO, in turns, so
that a busy machine touches both alike. CPU time is measured, of all threads, as other processes take less of it than of
wall time. The figure is the median of the turns' ratios, with the interval that holds the true median in 95 % of cases
(order statistics).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from geoseg.bundle import Bundle, load_bundle, save_bundle
from geoseg.engines import ONNX_CACHE_ENV, load_engine, usable_cores
from geoseg.inference import InferenceOptions, plan_inference, predict_block
from geoseg.networks import build_network


def widen(bundle: Bundle, folder: Path, auxiliary: tuple[str, ...]) -> Bundle:
    """Return the model with random auxiliary channels beside its own."""
    spec = replace(bundle.spec, name=f"wide{len(auxiliary)}", auxiliary=auxiliary)
    network = build_network(spec.network, bands=len(spec.bands), classes=len(spec.channels), **spec.network_options)
    own, count = bundle.weights(), len(spec.classes)
    for name, tensor in network.state_dict().items():
        known = tensor if tensor.shape == own[name].shape else tensor[:count]
        known.copy_(own[name])
    return load_bundle(save_bundle(folder / f"{spec.name}.safetensors", spec, network.state_dict()))


def take_turns(call: Callable[[int], None], turns: int) -> np.ndarray:
    """Return the CPU seconds `(turn, 2)` of `call(0)` and `call(1)`, which begin in turns."""
    call(0), call(1)
    seconds = np.zeros((turns, 2))
    for turn in range(turns):
        for number in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            call(number)
            seconds[turn, number] = time.process_time() - start
    return seconds


def main() -> None:
    """Print a row per measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="buildings-30cm")
    parser.add_argument("--chip", type=int, default=512)
    parser.add_argument("--chips", type=int, default=2)
    parser.add_argument("--turns", type=int, default=41)
    parser.add_argument("--auxiliary", nargs="*", default=["edge", "contact"])
    args = parser.parse_args()
    torch.manual_seed(0)
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[ONNX_CACHE_ENV] = name
        bundle = load_bundle(args.model)
        pair = [widen(bundle, folder, auxiliary) for auxiliary in ((), tuple(args.auxiliary))]
        side, bands = args.chip, len(bundle.spec.bands)
        size = 2 * (side - bundle.spec.halo_px)
        chips = np.random.default_rng(0).integers(0, 256, (args.chips, bands, side, side), np.uint8)
        engines = [load_engine(one, chip_shape=(side, side), device="cpu", threads=cores) for one in pair]

        def predict(number: int) -> None:
            with ThreadPoolExecutor(engines[number].threads) as pool:
                list(pool.map(lambda chip: engines[number].predict(chip[None]), chips))

        pixels = np.random.default_rng(1).integers(0, 256, (bands, size, size), np.uint8)
        profile = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32630"}
        profile |= {"count": bands, "height": size, "width": size}
        place = Affine(bundle.spec.gsd_m, 0, 5e5, 0, -bundle.spec.gsd_m, 6e5)
        with rasterio.open(folder / "scene.tif", "w", transform=place, **profile) as dst:
            dst.write(pixels)
        options = InferenceOptions(chip_px=side, device="cpu", precision="f32", threads=cores)
        plans = [plan_inference(str(folder / "scene.tif"), one, options) for one in pair]

        def block(number: int) -> None:
            predict_block(plans[number], plans[number].blocks(size)[0])

        rows: dict[str, Callable[[int], None]] = {
            f"{args.chips} chips through OpenVINO": predict,
            f"a block of {size} px": block,
        }
        count = 1 + len(args.auxiliary)
        print(f"| {cores} threads, {args.turns} turns | 1 channel, CPU s | {count} channels by 1 | 95 % |")
        print("| --- | ---: | ---: | ---: |")
        for title, call in rows.items():
            seconds = take_turns(call, args.turns)
            ratio = np.sort(seconds[:, 1] / seconds[:, 0])
            reach = round(0.98 * len(ratio) ** 0.5)  # normal approximation of the binomial distribution
            low, high = ratio[max(0, len(ratio) // 2 - reach)], ratio[min(len(ratio) - 1, len(ratio) // 2 + reach)]
            first = np.median(seconds[:, 0])
            print(f"| {title} | {first:.3f} | {np.median(ratio):.3f} | {low:.3f} to {high:.3f} |", flush=True)


if __name__ == "__main__":
    main()
