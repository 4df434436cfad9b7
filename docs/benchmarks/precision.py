"""What bfloat16 loses on areas with labels: python docs/benchmarks/precision.py DATA.

    python docs/benchmarks/precision.py DATA --only Kampala --only Banepa
    python docs/benchmarks/precision.py DATA --rounded     # on a processor without bfloat16

Every area of `buildings.py` is run and scored in both precisions; the table shows the IoU of pixels, the F1 of single
buildings, and the change in points. --rounded does not need a processor with bfloat16: torch computes in float32 and
rounds weights, and what every layer gives, to bfloat16. OpenVINO rounds less often, as it joins layers.
"""

import argparse
import logging
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from buildings import AREAS, measure

from geoseg.bundle import load_bundle
from geoseg.engines import Engine, native_precisions, usable_cores
from geoseg.engines.torch import TorchEngine
from geoseg.inference import EngineRecipe
from geoseg.networks import load_segmenter

DEFAULT = ("Banepa", "Kampala", "Dhaka", "Zanzibar", "Accra", "Massachusetts")


def to_bfloat16(values: torch.Tensor) -> torch.Tensor:
    """Return float32 values rounded to bfloat16."""
    return values.bfloat16().float()


@lru_cache(maxsize=2)
def load_rounded(recipe: EngineRecipe) -> Engine:
    """Return an engine that rounds weights and the output of every layer, and computes in float32."""
    model = load_segmenter(load_bundle(recipe.model))
    for layer in model.modules():
        if not list(layer.children()):
            for weights in layer.parameters(recurse=False):
                weights.data = to_bfloat16(weights.data)
            layer.register_forward_hook(lambda layer, given, found: to_bfloat16(found))
    torch.set_num_threads(usable_cores())
    return TorchEngine(model, "cpu")


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="buildings-30cm", help="for all areas but Massachusetts")
    parser.add_argument("--coarse-model", default="buildings-1m", help="for Massachusetts")
    parser.add_argument("--only", action="append", choices=AREAS, metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--rounded", action="store_true", help="round in torch, on a processor without bfloat16")
    given = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)
    if given.rounded:
        open_engine = EngineRecipe.open
        EngineRecipe.open = lambda recipe: load_rounded(recipe) if recipe.precision == "bf16" else open_engine(recipe)  # type: ignore[method-assign]
    elif "bf16" not in native_precisions():
        raise SystemExit("This processor does not have bfloat16. Give --rounded, or use another machine.")
    columns = ("IoU, f32", "IoU, bf16", "points", "F1, f32", "F1, bf16", "points")
    print(f"| area | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}", flush=True)
    for name in given.only or DEFAULT:
        model = given.coarse_model if AREAS[name].coarse else given.model
        found: list[dict[str, Any]] = []
        for precision in ("f32", "bf16"):
            with tempfile.TemporaryDirectory(prefix="geoseg-precision-") as folder:
                found.append(measure(AREAS[name], given.data, model, {"precision": precision}, Path(folder)))
        cells = []
        for key in ("iou", "f1"):
            exact, rounded = (figures[key] for figures in found)
            cells += [f"{exact:.4f}", f"{rounded:.4f}", f"{100 * (rounded - exact):+.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
