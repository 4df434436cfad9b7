"""Print how many errors lie where `geoseg review` points: python docs/benchmarks/review.py DATA.

Squares are ranked by several measures of doubt, and buildings by their confidence. A rule is good if the worst
tenth holds several times its share of the wrong pixels, or of the wrong buildings.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from buildings import AREAS, choose_area
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from geoseg import EvaluateSettings, RunSettings, evaluate_scenes, run_scene
from geoseg.errors import LabelError
from geoseg.evaluate.polygons import read_buildings
from geoseg.evaluate.prediction import grid_of
from geoseg.evaluate.review import measure_cells
from geoseg.grid import Window
from geoseg.io.tables import write_table
from geoseg.scene import StoredRaster

SCORED = ("Banepa", "Kampala", "Dhaka", "Accra")
WORST = 0.1


def read_truth(labels: Path, run: Path) -> np.ndarray:
    """Return 1 for buildings, 0 for none, 255 for unknown on the grid of a run, `(y, x)`."""
    grid = grid_of(run / "mask.tif")
    if labels.suffix != ".tif":
        return read_buildings(labels, grid, what="labels", error=LabelError, are_true=True).burn(
            Window(0, 0, *grid.shape)
        )
    with (
        rasterio.open(labels) as src,
        WarpedVRT(
            src,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.mode,
        ) as vrt,
    ):
        return vrt.read(1)


def sum_cells(values: np.ndarray, size: tuple[int, int], row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Return the sums of pixels in squares, `(cell,)`."""
    height, width = values.shape
    sums = np.add.reduceat(np.add.reduceat(values, np.arange(0, height, size[0]), 0), np.arange(0, width, size[1]), 1)
    return sums[row // size[0], col // size[1]]


def held(doubt: np.ndarray, wrong: np.ndarray) -> float:
    """Return the share of what is wrong in the worst tenth."""
    worst = np.argsort(-doubt, kind="stable")[: int(np.ceil(WORST * len(doubt)))]
    return float(wrong[worst].sum() / wrong.sum())


def measure(name: str, data: Path, folder: Path, sides: list[float]) -> list[list[str | float | int]]:
    """Run an area, and return its rows of the table, one per side of the squares in meters."""
    area = AREAS[name]
    scene, labels = next(iter(sorted(data.glob(area.scenes)))), data / area.labels
    scored, aoi = choose_area(area, data, scene), None
    if scored is not None:
        aoi = folder / "aoi.gpkg"
        scored.to_file(aoi)
    run = folder / "run"
    report = run_scene(scene, RunSettings(out=str(run), aoi=aoi), quiet=True).report
    grid = grid_of(run / "mask.tif")
    with rasterio.open(run / "probability.tif") as src:
        stored = src.read(1)
    p, truth, threshold = stored / 254, read_truth(labels, run), report["threshold"]
    has_data = stored != 255
    wrong = ((p >= threshold) != (truth == 1)) & has_data & (truth != 255)
    sure = np.clip(p, 1e-6, 1 - 1e-6)
    entropy = np.where(has_data, -sure * np.log2(sure) - (1 - sure) * np.log2(1 - sure), 0)
    between = ((p >= 0.3) & (p < 0.8) & has_data).astype(float)
    found = evaluate_scenes(str(run), EvaluateSettings(labels=labels, out=None, pictures=False)).total.buildings
    assert found is not None
    assert found.confidence is not None
    counts = found.outcome[0] >= 0
    mistakes, doubt = (found.outcome[0] == 0)[counts].astype(float), 1 - found.confidence[counts]
    worst = mistakes[np.argsort(-doubt, kind="stable")[: int(np.ceil(WORST * len(doubt)))]]
    rows: list[list[str | float | int]] = []
    for side in sides:
        cells = measure_cells(StoredRaster(str(run / "probability.tif")), grid, side, threshold)
        here = sum_cells(wrong, cells.size, cells.row, cells.col)
        rules = [cells.doubt, *(sum_cells(each, cells.size, cells.row, cells.col) for each in (entropy, between))]
        shares = [held(rule, here) for rule in [*rules, here]]
        rows.append([name, f"{side:g}", len(cells), *shares, float(worst.mean()), float(mistakes.mean())])
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real imagery")
    parser.add_argument("--only", action="append", help="only this area; repeatable")
    parser.add_argument("--sides", default="6,15,30", help="sides of the squares in meters")
    args = parser.parse_args()
    logging.disable()
    rows: list[list[str | float | int]] = []
    for name in args.only or SCORED:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, args.data, Path(folder), [float(side) for side in args.sides.split(",")])
    rules = ("expected wrong area", "entropy", "between 0.3 and 0.8", "wrong pixels themselves")
    print(write_table(("area", "side, m", "squares", *rules, "wrong of least sure tenth", "wrong of all"), rows))


if __name__ == "__main__":
    main()
