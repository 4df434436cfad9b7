"""Print the table of buildings in docs/benchmarks.md: python docs/benchmarks/buildings.py DATA.

    python docs/benchmarks/buildings.py DATA --model MODEL.safetensors --only Kampala --only Vegas
    python docs/benchmarks/buildings.py DATA --set threshold=0.4 --keep FOLDER

Every area is run as `geoseg run` does and its polygons are scored as `geoseg evaluate` does, row by row. --set changes
a setting of the runs; --keep keeps result folders, metrics and pictures. All true buildings count, however small; a
model has its own `min_area_m2`.
"""

import argparse
import ast
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import rasterio
import shapely
from rasterio.enums import Resampling

from geoseg import EvaluateSettings, RunSettings, evaluate_scenes, run_each, run_scene
from geoseg.evaluate import LabelSettings

AROUND_M = 30.0
"""Width of the land around the scored area that is predicted too, so that no building ends at its border."""

COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "truth": lambda b: f"{b['truth']:,}",
    "found": lambda b: f"{b['predicted']:,}",
    "F1": lambda b: f"**{b['f1']:.3f}** ({b['f1_low']:.2f} to {b['f1_high']:.2f})",
    "AP50": lambda b: f"{b['ap50']:.3f}",
    "precision": lambda b: f"{b['precision']:.3f}",
    "recall": lambda b: f"{b['recall']:.3f}",
    "IoU of pixels": lambda b: f"{b['iou']:.3f}",
    "IoU of pairs": lambda b: f"{b['matched_iou']:.3f}",
    "vertex ratio": lambda b: f"{b['vertex_ratio']:.2f}",
    "right corners (truth)": lambda b: f"{b['orthogonality']:.2f} ({b['true_orthogonality']:.2f})",
    "PoLiS, m; px": lambda b: f"{b['polis']:.2f}; {b['polis_px']:.2f}",
    "hole F1": lambda b: f"{b['hole_f1']:.2f}",
    "shared walls (truth)": lambda b: f"{b['shared_edges']:.2f} ({b['true_shared_edges']:.2f})",
    "gaps, overlaps, m2": lambda b: f"{b['gap_area']:.1f}, {b['overlap_area']:.1f}",
    "slivers, invalid": lambda b: f"{b['slivers']}, {b['invalid']}",
}


@dataclass(frozen=True, slots=True)
class Area:
    """A row of the table.

    Attributes:
        scenes: Path or pattern of the scenes below DATA.
        labels: File or folder below DATA.
        split: Value of `split` in `splits.geojson` beside the labels.
        columns: Left and right border of the scored columns, as shares of the scene's width (up to 1) or in pixels.
        gsd_m: Pixel size to which the scene is reduced first.
        coarse: Whether the model of 1 m is used.
    """

    scenes: str
    labels: str
    split: str | None = None
    columns: tuple[float, float] | None = None
    gsd_m: float | None = None
    coarse: bool = False


AREAS = {
    "Banepa": Area("banepa/banepa.tif", "banepa/buildings.geojson", split="test"),
    "Banepa east, 0.6 m": Area("banepa/banepa.tif", "banepa/buildings.geojson", columns=(0.5, 1.0), gsd_m=0.6),
    "Kampala": Area("towns/kampala.tif", "towns/kampala.geojson"),
    "Dhaka": Area("towns/dhaka.tif", "towns/dhaka.geojson", columns=(0, 512)),
    "Zanzibar": Area("towns/zanzibar.tif", "towns/zanzibar.geojson"),
    "Vegas": Area("towns/vegas/images/*.tif", "towns/vegas/labels"),
    "Accra": Area("accra/accra.tif", "accra/accra_buildings.tif", split="test"),
    "Massachusetts": Area("massachusetts/images/23[578][72]*.tif", "massachusetts/labels", coarse=True),
}


def reduce(scene: Path, gsd_m: float, out: Path) -> Path:
    """Write a scene with pixels of about `gsd_m`, averaged."""
    from geoseg import open_scene

    own = open_scene(scene).native.gsd_m
    assert own is not None
    with rasterio.open(scene) as src:
        height, width = (round(size * m / gsd_m) for size, m in zip(src.shape, own[::-1], strict=True))
        place = src.transform @ src.transform.scale(src.width / width, src.height / height)
        pixels = src.read(out_shape=(src.count, height, width), resampling=Resampling.average)
        profile = {"driver": "GTiff", "dtype": src.dtypes[0], "crs": src.crs, "transform": place}
        with rasterio.open(out, "w", width=width, height=height, count=src.count, **profile) as dst:
            dst.write(pixels)
    return out


def choose_area(area: Area, data: Path, scene: Path) -> geopandas.GeoDataFrame | None:
    """Return the scored area in the CRS of the scene; None for all of it."""
    with rasterio.open(scene) as src:
        if area.columns is not None:
            left, right = (share * src.width if share <= 1 else share for share in area.columns)
            (west, top), (east, bottom) = src.transform @ (left, 0), src.transform @ (right, src.height)
            return geopandas.GeoDataFrame(geometry=[shapely.box(west, bottom, east, top)], crs=src.crs)
        if area.split is not None:
            splits = geopandas.read_file((data / area.labels).parent / "splits.geojson").to_crs(src.crs)
            return splits[splits["split"] == area.split]
    return None


def measure(area: Area, data: Path, model: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run an area and score its polygons; return the figures of buildings, and `iou` of the pixels."""
    scenes = sorted(data.glob(area.scenes))
    if not scenes:
        raise SystemExit(f"{data / area.scenes} does not exist.")
    folder.mkdir(parents=True, exist_ok=True)
    if area.gsd_m is not None:
        scenes = [reduce(scenes[0], area.gsd_m, folder / scenes[0].name)]
    scored = choose_area(area, data, scenes[0]) if len(scenes) == 1 else None
    results, aoi, around = folder / "results", None, None
    if scored is not None:
        aoi = folder / "area.gpkg"
        scored[["geometry"]].to_file(aoi)
        around = scored.to_crs(scored.estimate_utm_crs()).buffer(AROUND_M).to_frame("geometry")
    settings = RunSettings(model=model, out=results, aoi=around, **options)
    if len(scenes) == 1:
        run_scene(scenes[0], settings, quiet=True)
    else:
        run_each([str(scene) for scene in scenes], settings, quiet=True)
    labels = LabelSettings(elsewhere=True)  # some chips have no building
    asked = EvaluateSettings(labels=data / area.labels, label_settings=labels, aoi=aoi, out=folder / "scores")
    found = evaluate_scenes(results, asked).total.metrics()
    return found["buildings"] | {"iou": found["iou"]}


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="buildings-30cm", help="for all areas but Massachusetts")
    parser.add_argument("--coarse-model", default="buildings-1m", help="for Massachusetts")
    parser.add_argument("--only", action="append", choices=AREAS, metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the runs")
    parser.add_argument("--keep", type=Path, help="folder for results, metrics and pictures")
    given = parser.parse_args()
    logging.getLogger("geoseg").setLevel(logging.ERROR)  # three chips of Vegas have no building, as warnings would say
    options: dict[str, Any] = {"precision": "f32"}  # the same on every processor
    for name, value in (pair.split("=", 1) for pair in given.set):
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    print(f"| area | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * len(COLUMNS)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="geoseg-buildings-") as scratch:
        for name in given.only or AREAS:
            area = AREAS[name]
            model = given.coarse_model if area.coarse else given.model
            folder = (given.keep or Path(scratch)) / name.replace(",", "").replace(" ", "_")
            figures = measure(area, given.data, model, options, folder)
            cells = [name, *(cell(figures).replace("nan", "-") for cell in COLUMNS.values())]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
