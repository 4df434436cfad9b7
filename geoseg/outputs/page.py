"""The page of a result: one HTML file that opens without a network and asks none, for people without a GIS.

It holds a preview of the scene and the buildings as polygons in pixels of the scene, drawn on a canvas by the script in
`page.html`. A page with very many buildings shows the probability in the resolution of the preview instead. Everything
goes into the page as JSON and is set as text, so that no name of a file or a class becomes markup or code.
"""

import base64
import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterWindow

from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA
from geoseg.io.aside import reported, write_text
from geoseg.io.remote import public_url
from geoseg.io.tables import plural
from geoseg.outputs.geoparquet import read_batches
from geoseg.outputs.styles import CLASSES
from geoseg.third_party import allow_no_georeference

if TYPE_CHECKING:
    import pyarrow

PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("page.html")

PREVIEW_PX = 2048
"""Maximum side of the preview in pixels."""

MOST_BUILDINGS = 50_000
"""Buildings that are drawn one by one: about 8 MB of a page. To show some of more would be no fair picture."""

PARTS = 4
"""Vertices are rounded to this fraction of the scene's pixels."""

SLACK_PX = 0.25
"""How far simplified outlines may lie from the polygons, in pixels of the scene."""

JPEG_QUALITY = "85"

STEPS = 100
"""Steps of the slider of confidence."""

BARS = 20
"""Bars of the histogram of confidence."""

AREAS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Limits of the bars of areas, in square meters."""

LINKED = (".gpkg", ".parquet", ".fgb", ".tif", ".qgz", ".png")
"""Files of a result that the page links."""

SHOWN = 5
"""Files of a scene that are named."""

MOST_LETTERS = 120

UNTOLD = ("out", "overwrite", "model", "scheduler")
"""Settings that say nothing about the result, or are told elsewhere; an address may hold a password."""

STAGES = ("open", "imports", "blocks", "mosaic", "polygons", "picture", "page", "total")
"""Stages of a run in their order, which JSON does not keep."""

COLUMNS = {
    "id": "id",
    "area_m2": "area, {}",
    "perimeter_m": "perimeter, {}",
    "confidence": "confidence",
    "confidence_min": "smallest probability inside",
    "edge": "cut by the edge of the data",
    "orientation_deg": "direction of the longer walls, °",
    "vertices": "vertices",
    "outline": "outline",
}
"""Attributes of a building, and what the page calls them."""


@dataclass(slots=True)
class Gathered:
    """What a page shows of the buildings.

    Attributes:
        counts: Buildings by confidence, `(STEPS + 1,)`: the last are those of exactly 1.
        areas: Their areas in square meters, likewise.
        by_area: Buildings by area, one more than `AREAS`.
        shapes: Rings of each building: differences of whole numbers; none if there are too many buildings.
        confidence: Of each of these buildings.
        rows: Their attributes as texts.
        probability: `(y, x)` stored probabilities in the resolution of the view, if there are too many buildings.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(STEPS + 1, np.int64))
    areas: NDArray[np.float64] = field(default_factory=lambda: np.zeros(STEPS + 1))
    by_area: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(AREAS) + 1, np.int64))
    shapes: list[list[list[int]]] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    probability: NDArray[np.uint8] | None = None

    @property
    def total(self) -> int:
        """Number of all buildings."""
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class View:
    """The part of a scene that a page shows, which is where the result has data, and its resolution.

    Attributes:
        shape: Height and width of the whole scene in that resolution.
        window: The part.
    """

    shape: tuple[int, int]
    window: Window

    @classmethod
    def of(cls, probability: Path) -> "View":
        """Find the data of a result, by the overviews of the file: an AOI may be a small part of a large scene."""
        with allow_no_georeference(), rasterio.open(probability) as file:
            height, width = file.shape
            top, left, bottom, right = 0.0, 0.0, float(height), float(width)
            while True:
                step = max(1.0, max(bottom - top, right - left) / PREVIEW_PX)
                shape = (max(1, round(height / step)), max(1, round(width / step)))
                rows, cols = height / shape[0], width / shape[1]
                row, col = int(top / rows), int(left / cols)
                end = (min(shape[0], math.ceil(bottom / rows)), min(shape[1], math.ceil(right / cols)))
                view = cls(shape, Window(row, col, max(1, end[0] - row), max(1, end[1] - col)))
                has_data = view.read(file) != NODATA
                found = [np.flatnonzero(has_data.any(axis=axis)) for axis in (1, 0)]
                if has_data.sum() == 0 or np.prod([len(each) for each in found]) > has_data.size / 2:
                    return view
                (top, bottom), (left, right) = (
                    ((start + each[0] - 1) * scale, (start + each[-1] + 2) * scale)
                    for each, start, scale in zip(found, (row, col), (rows, cols), strict=True)
                )
                top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
                if step == 1:
                    return cls(shape, Window(int(top), int(left), int(bottom - top), int(right - left)))

    def part_of(self, shape: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return first row, first column, height and width of the part in pixels of the scene."""
        rows, cols = shape[0] / self.shape[0], shape[1] / self.shape[1]
        return self.window.row * rows, self.window.col * cols, self.window.height * rows, self.window.width * cols

    def read(self, file: rasterio.DatasetReader) -> NDArray[np.uint8]:
        """Read the part of a raster of the result, in the resolution of the view."""
        row, col, height, width = self.part_of(file.shape)
        part = RasterWindow(col, row, width, height)
        return np.asarray(file.read(1, window=part, out_shape=self.window.shape), np.uint8)


def gather_buildings(parquet: Path, probability: Path, grid: Grid, view: View) -> Gathered:
    """Read the buildings of a result, a batch at a time.

    Args:
        parquet: `buildings.parquet`.
        probability: `probability.tif`, which is read if there are too many buildings.
        grid: Grid of the scene.
        view: The part of the scene that the page shows.
    """
    row, col, _, _ = view.part_of(grid.shape)
    found, to_view = Gathered(), Affine.translation(-col, -row) @ ~grid.transform
    for batch in read_batches(parquet):
        columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in ("area_m2", "confidence")}
        confidence = np.nan_to_num(columns["confidence"].astype(np.float64)).round(4)
        steps = np.clip(np.floor((confidence * STEPS).round(6)), 0, STEPS).astype(int)
        found.counts += np.bincount(steps, minlength=STEPS + 1)
        found.areas += np.bincount(steps, columns["area_m2"], minlength=STEPS + 1)
        found.by_area += np.bincount(np.digitize(columns["area_m2"], AREAS), minlength=len(AREAS) + 1)
        if found.total > MOST_BUILDINGS:
            found.shapes, found.confidence, found.rows = [], [], []
        elif len(batch):
            found.shapes += _shapes(batch, to_view)
            found.confidence += confidence.tolist()
            found.rows += _rows(batch)
    if found.total > MOST_BUILDINGS:
        with allow_no_georeference(), rasterio.open(probability) as file:
            found.probability = view.read(file)
    return found


def _shapes(batch: "pyarrow.RecordBatch", to_view: Affine) -> list[list[list[int]]]:
    """Return the rings of polygons in parts of the scene's pixels, each number less the one before."""
    t = to_view
    polygons = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
    pixels = shapely.transform(
        polygons, lambda x, y: (t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f), interleaved=False
    )
    rings, owner = shapely.get_rings(shapely.simplify(pixels, SLACK_PX), return_index=True)
    found: list[list[list[int]]] = [[] for _ in range(len(polygons))]
    for ring, number in zip(rings, owner.tolist(), strict=True):
        corners = np.rint(shapely.get_coordinates(ring)[:-1] * PARTS).astype(np.int64)
        found[number].append(np.diff(corners, axis=0, prepend=0).ravel().tolist())
    return found


def _rows(batch: "pyarrow.RecordBatch") -> list[list[str]]:
    """Return the attributes of buildings as texts."""
    columns = [[_show(value) for value in batch[name].to_pylist()] for name in COLUMNS if name in batch.schema.names]
    return [list(row) for row in zip(*columns, strict=True)]


def _show(value: Any) -> str:
    """Return a value for a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_show(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_show, value))
    return "" if value is None else public_url(str(value))


def encode_picture(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as a URL that holds it: `(y, x, color)` as JPEG, `(y, x)` as PNG without loss."""
    driver, kind = ("JPEG", "jpeg") if pixels.ndim == 3 else ("PNG", "png")
    bands = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    profile = {"driver": driver, "dtype": "uint8", "count": len(bands)}
    profile |= {"height": bands.shape[1], "width": bands.shape[2]} | (
        {"QUALITY": JPEG_QUALITY} if kind == "jpeg" else {}
    )
    with allow_no_georeference(), MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(bands)
        data = memory.read()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def write_page(
    report: Mapping[str, Any],
    sizes: Mapping[str, int],
    folder: Path,
    view: View,
    found: Gathered,
    image: NDArray[np.uint8] | None,
    *,
    why: str = "",
) -> Path:
    """Write `index.html` for a result.

    Args:
        report: The contents of `run.json`.
        sizes: Sizes of the files of the result in bytes, by name.
        folder: Where the page is written.
        view: The part of the scene that it shows.
        found: What `gather_buildings` found.
        image: `(y, x, color)` preview of that part; None where there is none.
        why: Why there is none.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = folder / PAGE
    data = _describe(report, sizes, found)
    data["notes"] += [why] if why else []
    with reported(path, *GDAL_ERRORS):
        data["image"] = encode_picture(image) if image is not None else None
        data["probability"] = encode_picture(found.probability) if found.probability is not None else None
    _, _, data["height"], data["width"] = view.part_of(report["scene"]["grid"]["shape"])
    data["step"] = data["width"] / view.window.width
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = TEMPLATE.read_text(encoding="utf-8").replace("@TITLE@", html.escape(data["title"]))
    head, tail = page.split("@DATA@")
    return write_text(path, (head + safe + tail).encode("utf-8", "replace").decode())  # names may be no Unicode


def _describe(report: Mapping[str, Any], sizes: Mapping[str, int], found: Gathered) -> dict[str, Any]:
    """Return what the script of the page needs to know, but for the pictures."""
    has_shapes = found.probability is None
    scene, model, counts = report["scene"], report["model"], report["counts"]
    unit = "m²" if scene["crs"] is not None else "px"
    target = str(model["target"])
    noun = "buildings" if target == "building" else f"polygons of {target}"
    lost = report.get("failed_blocks") or ()
    notes = [f"{plural(len(lost), 'block')} could not be read: there the result is without data."] if lost else []
    hint = (
        "Click a polygon to see its attributes. Left of the line is the image alone, right of it the result."
        if has_shapes
        else f"{found.total:,} {noun} are too many for a page to draw: it shows the probability of {target} from the "
        f"threshold {report['threshold']:g} on, in the resolution of the preview. The slider counts all {noun}; "
        "project.qgz and buildings.gpkg have each of them."
    )
    attributes = [label.format(unit.rstrip("²") if name == "perimeter_m" else unit) for name, label in COLUMNS.items()]
    shapes = {"shapes": found.shapes, "confidence": found.confidence, "rows": found.rows, "names": attributes}
    area = f"{report['area_m2']:,.0f} {unit}"
    when = str(report["started"])[:10]
    return {
        "title": str(scene["name"]),
        "subtitle": f"{counts['buildings']:,} {noun}, {area}; model {model['name']}; geoseg {report['geoseg']}, {when}",
        "notes": notes,
        "hint": hint,
        "measure": "Confidence at least",
        "noun": noun,
        "unit": unit,
        "parts": PARTS,
        "threshold": report["threshold"],
        "breaks": [high for _, high, _, _ in CLASSES],
        "colors": [[int(part) for part in color.split(",")] for _, _, color, _ in CLASSES],
        "legend": [[f"rgb({color})", label] for _, _, color, label in CLASSES],
        "by_confidence": {"counts": found.counts.tolist(), "areas": found.areas.round(2).tolist()},
        "buildings": shapes if has_shapes else None,
        "sections": list(_sections(report, sizes, found, unit)),
    }


def _sections(
    report: Mapping[str, Any], sizes: Mapping[str, int], found: Gathered, unit: str
) -> Iterator[dict[str, Any]]:
    """Yield the tables and histograms beside the map."""
    scene, model, counts, gsd_m = report["scene"], report["model"], report["counts"], report["scene"]["grid"]["gsd_m"]
    valid, built, total = counts["valid_pixels"], counts["building_pixels"], max(1, found.total)
    ground = f"{valid * gsd_m[0] * gsd_m[1] / 1e6:,.3f}\u00a0km²" if gsd_m else f"{valid:,} px"
    yield {
        "title": "Summary",
        "rows": [
            ("buildings" if model["target"] == "building" else "polygons", f"{found.total:,}"),
            ("total area", f"{found.areas.sum():,.0f}\u00a0{unit}"),
            ("mean area", f"{found.areas.sum() / total:,.1f}\u00a0{unit}"),
            ("cut by the edge of the data", f"{counts['buildings_at_edge']:,}"),
            ("ground with data", ground),
            ("covered", f"{100 * built / max(1, valid):.1f} %"),
        ],
    }
    is_fitted = bool(model.get("confidence"))
    yield {
        "title": "Confidence",
        "text": "Probability that a building matches a true one." if is_fitted else "Mean probability of the pixels.",
        "counts": _bars(found.counts),
        "labels": [f"{i / BARS:.2f} to {(i + 1) / BARS:.2f}" for i in range(BARS)],
        "ends": ["0", "0.5", "1"],
        "measured": True,
    }
    limits = [f"{limit:,}" for limit in AREAS]
    between = [f"{low} to {high} {unit}" for low, high in pairwise(limits)]
    yield {
        "title": f"Area, {unit}",
        "counts": found.by_area.tolist(),
        "labels": [f"below {limits[0]} {unit}", *between, f"{limits[-1]} {unit} and more"],
        "ends": [f"below {limits[0]}", f"{limits[-1]} and more"],
    }
    if report.get("classes"):
        found_classes = [(name, report["classes"][name]) for name in model["classes"] if name in report["classes"]]
        yield {"title": "Classes", "rows": [(name, f"{100 * each['share']:.1f} %") for name, each in found_classes]}
    seconds = sorted(report["seconds"].items(), key=lambda item: (*STAGES, item[0]).index(item[0]))
    yield {"title": "Time", "rows": [(name, f"{value:,.1f} s") for name, value in seconds]}
    terms = {"name": model["name"], "version": model["version"], "finds": model["target"]}
    yield {
        "title": "Model",
        "rows": [(name, _show(value)) for name, value in terms.items()]
        + [("terms of its weights", _show(model.get("license") or "not stated"))],
        "text": "The image has terms of its own, which apply to what is derived from it.",
    }
    native = scene["native"]
    named = [public_url(path).rpartition("/")[2] for path in scene["paths"]]
    yield {
        "title": "Scene",
        "rows": [
            ("files", ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN:,} more" if len(named) > SHOWN else "")),
            ("CRS", _short(scene["crs"] or "none")),
            ("pixels", f"{native['shape'][1]:,} x {native['shape'][0]:,}"),
            ("pixel size", f"{max(native['gsd_m']):.3g} m" if native["gsd_m"] else "unknown"),
            ("pixel size of the result", f"{max(gsd_m):.3g} m" if gsd_m else "unknown"),
            ("bands", _show(scene["bands"])),
        ],
    }
    resolved = {name: report[name] for name in ("threshold", "min_area_m2", "fill_holes_m2", "split_depth")}
    given = {name: value for name, value in report["settings"].items() if name not in UNTOLD} | resolved
    rows = [(name, _short(_show(value))) for name, value in sorted(given.items()) if value not in (None, (), [], "")]
    yield {"title": "Settings", "rows": rows}
    linked = [(name, f"{size / 1e6:,.2f} MB", f"./{name}") for name, size in sorted(sizes.items()) if _is_linked(name)]
    yield {"title": "Files", "rows": [*linked, ("run.json", "", "./run.json")]}


def _is_linked(name: str) -> bool:
    return name.endswith(LINKED) and not name.startswith(".")


def _bars(counts: NDArray[np.int64]) -> list[int]:
    """Return the counts of the slider's steps as those of the histogram; 1 itself belongs to the last bar."""
    bars = counts[:-1].reshape(BARS, -1).sum(axis=1)
    bars[-1] += counts[-1]
    found: list[int] = bars.tolist()
    return found


def _short(text: str) -> str:
    """Return a text that fits into a table: coordinates of an AOI or a CRS may be endless."""
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."
