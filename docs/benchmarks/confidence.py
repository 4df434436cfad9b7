"""Fit and check the confidence of a model's buildings: python docs/benchmarks/confidence.py DATA.

The coefficients are fitted to the buildings of some areas, and the confidence is compared with the outcomes in others:
of the buildings with confidence 0.8, four in five should match a true one at IoU 0.5. Areas whose labels are masks are
left out, as houses that touch are one building there.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas
import numpy as np
import shapely

from geoseg.bundle import load_bundle, save_bundle
from geoseg.evaluate import EvaluateSettings, evaluate_scenes
from geoseg.evaluate.buildings import BuildingCounts
from geoseg.evaluate.calibration import fit_evaluation, measure_confidence
from geoseg.evaluate.pictures import draw_building_reliability
from geoseg.evaluate.reliability import calibration_error
from geoseg.io.tables import write_table
from geoseg.scene import open_scene
from geoseg.vectorize.calibration import calibrate


@dataclass(frozen=True, slots=True)
class Area:
    """A scene and its labels, perhaps only a part of it."""

    image: Path
    labels: Path
    where: str | None = None
    columns: tuple[float, float] = (0.0, 1.0)


def list_areas(data: Path) -> tuple[dict[str, list[Area]], dict[str, list[Area]]]:
    """Return the areas to fit to, and those to check with; neither was trained on, except those named `trained`."""
    towns, banepa = data / "towns", data / "banepa"

    def town(name: str, **part: tuple[float, float]) -> list[Area]:
        return [Area(towns / f"{name}.tif", towns / f"{name}.geojson", **part)]

    def split(name: str) -> list[Area]:
        return [Area(banepa / "banepa.tif", banepa / "buildings.geojson", f"split = '{name}'")]

    chips = sorted((towns / "vegas" / "images").glob("*.tif"))
    labels = [towns / "vegas" / "labels" / f"{chip.stem}.geojson" for chip in chips]
    vegas = [Area(chip, path) for chip, path in zip(chips, labels, strict=True) if len(geopandas.read_file(path))]
    fitted = {"Vegas": vegas, "Dhaka, west": town("dhaka", columns=(0.0, 0.5)), "Zanzibar": town("zanzibar")}
    fitted["Banepa, trained"] = split("train")
    checked = {"Banepa, test": split("test"), "Kampala": town("kampala"), "Banepa, south": town("banepa_south")}
    return fitted, checked


def evaluate_area(area: Area, model: str | Path) -> BuildingCounts:
    """Score the buildings of an area."""
    with TemporaryDirectory() as folder:
        aoi, where = (area.image.parent / "splits.geojson", area.where) if area.where else (None, None)
        if area.columns != (0.0, 1.0):
            grid, aoi = open_scene(area.image).grid, Path(folder) / "part.gpkg"
            left, right = (round(share * grid.width) for share in area.columns)
            corners = [grid.transform @ xy for xy in ((left, 0), (right, 0), (right, grid.height), (left, grid.height))]
            geopandas.GeoDataFrame(geometry=[shapely.Polygon(corners)], crs=grid.crs.to_wkt()).to_file(aoi)
        asked = EvaluateSettings(labels=area.labels, model=model, aoi=aoi, aoi_where=where, precision="f32")
        found = evaluate_scenes(area.image, asked).total.buildings
    assert found is not None
    return found


def main() -> None:
    """Print the coefficients, and reliability before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="buildings-30cm")
    parser.add_argument("--without", nargs="*", default=[], help="terms to leave out")
    parser.add_argument("--draw", type=Path, help="a picture of the reliability in the areas that were not fitted to")
    parser.add_argument("--write", type=Path, help="the model with the coefficients as .safetensors")
    args = parser.parse_args()
    bundle = load_bundle(args.model)
    groups = list_areas(args.data)
    with TemporaryDirectory() as folder:
        plain = replace(bundle.spec, confidence={})
        path = save_bundle(Path(folder) / "plain.safetensors", plain, bundle.weights())
        counts = [
            {name: sum_up([evaluate_area(area, path) for area in areas]) for name, areas in group.items()}
            for group in groups
        ]
    coefficients = fit_evaluation(sum_up(list(counts[0].values())), without=args.without)
    print(write_table(("term", "coefficient"), [(name, f"{value:.3f}") for name, value in coefficients.items()]), "\n")
    rows = []
    for title, group in zip(("fitted", "checked"), counts, strict=True):
        for name, found in {**group, f"all {title}": sum_up(list(group.values()))}.items():
            before, after = found, recalibrate(found, coefficients)
            errors = (calibration_error(measure_confidence(one)) for one in (before, after))
            means = (float(np.mean(one.confidence)) for one in (before, after))
            rows.append((title, name, found.predictions, found.metrics()["precision"], *means, *errors))
    columns = ("buildings", "share matched", "mean probability", "confidence", "its error before", "after")
    print(write_table(("", "area", *columns), rows), "\n")
    after = recalibrate(sum_up(list(counts[1].values())), coefficients)
    bins = measure_confidence(after)
    table = [(f"{b.low:.1f} to {b.high:.1f}", b.count, b.confidence, b.frequency) for b in bins]
    print(write_table(("confidence", "buildings", "mean", "share matched"), table))
    if args.draw:
        print(draw_building_reliability(args.draw, bins))
    if args.write:
        spec = replace(bundle.spec, confidence=coefficients)
        print(save_bundle(args.write, spec, bundle.weights()))


def sum_up(counts: list[BuildingCounts]) -> BuildingCounts:
    """Return the buildings of all areas together."""
    return sum(counts[1:], start=counts[0])


def recalibrate(counts: BuildingCounts, coefficients: dict[str, float]) -> BuildingCounts:
    """Return the same buildings with the confidence that the coefficients give them."""
    assert counts.evidence is not None
    return replace(counts, confidence=calibrate(counts.evidence, coefficients))


if __name__ == "__main__":
    main()
