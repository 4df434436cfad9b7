"""Score bundles on the real test areas, with what they cost: python docs/benchmarks/results.py DATA BUNDLE...

Networks of buildings are scored on the test areas of the places that they learned from: Accra, Banepa, six scenes of
Massachusetts (where `buildings-30cm` and `buildings-1m` meet). Networks of several classes are scored on tiles 7
and 8 of Dubai. Every bundle's speed is measured on the same chips in turns, so that a busy machine touches all alike.
Tables are Markdown; OUT keeps what was scored.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.bundle import Bundle, load_bundle
from geoseg.engines import load_engine, usable_cores
from geoseg.evaluate import Confusion, EvaluateSettings, LabelSettings, evaluate_scenes
from geoseg.networks import load_segmenter, network_facts

CHIP_PX, CHIPS, TURNS = 512, 4, 3
MASSACHUSETTS_TEST = ("2357", "2372", "2387")


def main() -> None:
    """Print a table of figures on each test area, and one of costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("results"), help="Figures already there are not made again.")
    parser.add_argument("--no-speed", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    bundles = [load_bundle(name) for name in args.bundles]
    binary = [b for b in bundles if len(b.spec.classes) <= 2]
    for area in ("accra", "banepa", "massachusetts"):
        chosen = [b for b in binary if area in (source["name"] for source in b.spec.training["sources"])]
        if chosen:
            print_buildings(area, [(b, total_of(b, area, args.data, args.out)) for b in chosen])
    several = [b for b in bundles if len(b.spec.classes) > 2]
    if several:
        print_classes([(b, total_of(b, "dubai", args.data, args.out)) for b in several])
    print_costs(bundles, with_speed=not args.no_speed)


def total_of(bundle: Bundle, area: str, data: Path, out: Path) -> dict[str, Any]:
    """Return the figures over all scenes of a test area, from OUT where they are there already."""
    kept = out / f"{bundle.spec.name}-{bundle.key}-{area}.json"
    if not kept.is_file():
        parts = [evaluate_scenes(files, settings).to_dict() for files, settings in jobs(bundle, area, data)]
        out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(parts[0]["total"] if len(parts) == 1 else pool(parts)))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def pool(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the pixels of several evaluations of one network."""
    counts = np.sum([part["total"]["confusion"] for part in parts], axis=0)
    confusion = Confusion(counts, tuple(parts[0]["classes"]))
    return confusion.metrics(target=parts[0]["target"], unscored=parts[0]["unscored"])


def jobs(bundle: Bundle, area: str, data: Path) -> Iterator[tuple[list[Path], EvaluateSettings]]:
    """Yield the files and settings of each evaluation."""
    common: dict[str, Any] = {"model": bundle.path, "precision": "f32"}
    if area == "dubai":
        codes = (*((color, name) for name, color in bundle.spec.colors.items()), ("#000000", "unlabelled"))
        for tile in (7, 8):
            folder = data / "dubai" / f"Tile {tile}"
            labels = LabelSettings(codes=codes)
            settings = EvaluateSettings(labels=folder / "masks", label_settings=labels, buildings=False, **common)
            yield sorted((folder / "images").glob("*.jpg")), settings
    elif area == "massachusetts":
        folder = data / "massachusetts"
        scenes = sorted(p for p in (folder / "images").glob("*.tif") if p.name.startswith(MASSACHUSETTS_TEST))
        yield scenes, EvaluateSettings(labels=folder / "labels", **common)
    else:
        folder, truth = data / area, {"accra": "accra_buildings.tif", "banepa": "buildings.geojson"}[area]
        where = {"area": folder / "splits.geojson", "where": "split = 'test'"}
        yield [folder / f"{area}.tif"], EvaluateSettings(labels=folder / truth, **where, **common)


def print_buildings(area: str, rows: list[tuple[Bundle, dict[str, Any]]]) -> None:
    """Print the figures of building networks, best first."""
    keys = ("iou", "dice", "precision", "recall", "mean_iou", "pixel_accuracy", "boundary_iou")
    print(f"\n### {area.capitalize()}\n")
    print("| network | IoU | Dice | precision | recall | mean IoU | pixel accuracy | boundary IoU | F1 of buildings |")
    print("| --- |" + " --- |" * 8)
    for bundle, total in sorted(rows, key=lambda row: -row[1]["iou"]):
        figures = [total[key] for key in keys] + [total.get("buildings", {}).get("f1", float("nan"))]
        print(f"| `{bundle.spec.name}` | " + " | ".join(f"{value:.3f}" for value in figures) + " |")


def print_classes(rows: list[tuple[Bundle, dict[str, Any]]]) -> None:
    """Print the figures of networks of several classes, and a table of each one's classes."""
    print("\n### Dubai, tiles 7 and 8\n\n| network | mean IoU of the named classes | mean Dice | pixel accuracy |")
    print("| --- | --- | --- | --- |")
    for bundle, total in sorted(rows, key=lambda row: -row[1]["mean_iou"]):
        figures = (total[key] for key in ("mean_iou", "mean_dice", "pixel_accuracy"))
        print(f"| `{bundle.spec.name}` | " + " | ".join(f"{value:.3f}" for value in figures) + " |")
    for bundle, total in rows:
        print(f"\n| `{bundle.spec.name}` | IoU | precision | recall | F1 | Mpx |\n| --- |" + " --- |" * 5)
        for name, of in total["classes"].items():
            figures = " | ".join(f"{of[key]:.3f}" for key in ("iou", "precision", "recall", "dice"))
            print(f"| {name} | {figures} | {of['pixels'] / 1e6:.2f} |")


def print_costs(bundles: list[Bundle], *, with_speed: bool) -> None:
    """Print parameters, operations, and megapixels per second of the engine on all cores."""
    speeds = measure_speeds(bundles) if with_speed else {}
    print("\n### Cost\n\n| network | parameters | GFLOP/Mpx | file | Mpx/s | trained on | in |\n| --- |" + " --- |" * 6)
    for bundle in bundles:
        facts = network_facts(load_segmenter(bundle).network, len(bundle.spec.bands))
        trained = bundle.spec.training.get("fit", {"batch": 8, "crop_px": 256})
        seen = {**bundle.spec.training, **bundle.spec.metrics.get("validation", {})}
        mpx = seen.get("steps", 0) * trained["batch"] * trained["crop_px"] ** 2 / 1e6
        size, speed = bundle.path.stat().st_size / 1e6, speeds.get(bundle.key, float("nan"))
        cost = f"{facts.parameters / 1e6:.1f} M | {facts.gflop_per_mpx:.0f} | {size:.1f} MB | {speed:.2f}"
        print(f"| `{bundle.spec.name}` | {cost} | {mpx:,.0f} Mpx | {seen.get('minutes', float('nan')):.0f} min |")


def measure_speeds(bundles: list[Bundle]) -> dict[str, float]:
    """Return the best of some turns, Mpx/s, by the bundle's key."""
    cores, shape = usable_cores(), (CHIP_PX, CHIP_PX)
    chips = np.random.default_rng(0).integers(0, 256, (CHIPS, 3, *shape), np.uint8)
    engines = {bundle.key: load_engine(bundle, chip_shape=shape, device="cpu") for bundle in bundles}
    best = dict.fromkeys(engines, 0.0)
    for engine in engines.values():
        engine.predict(chips[:1])
    for _ in range(TURNS):
        for key, engine in engines.items():
            start = time.perf_counter()
            with ThreadPoolExecutor(cores) as threads:
                list(threads.map(lambda chip, engine=engine: engine.predict(chip[None]), chips))
            best[key] = max(best[key], chips[:, 0].size / 1e6 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
