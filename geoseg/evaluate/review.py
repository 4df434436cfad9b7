"""Where is a map wrong? What of a run a person should look at first, and how good it is by what they find."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg._version import __version__
from geoseg.errors import LabelError, UsageError
from geoseg.evaluate.bootstrap import LEVEL, Interval
from geoseg.evaluate.layers import FOOTPRINTS, PROBABILITY, check_out, read_footprints, require_run, write_out
from geoseg.evaluate.prediction import grid_of
from geoseg.grid import Grid, Window
from geoseg.inference import NODATA, PROBABILITY_ONE
from geoseg.io.store import LocalStore
from geoseg.io.tables import plural, write_table
from geoseg.outputs.styles import form_qml, plain_qml
from geoseg.scene import Raster, StoredRaster, close_readers

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

LAYERS, REPORT = "review.gpkg", "review.json"
"""The files of a review, the report last."""

PLACES, BUILDINGS = "places", "buildings"
SAMPLED_PLACES, SAMPLED_BUILDINGS = "sample_places", "sample_buildings"
"""Layers of `review.gpkg`."""

IS_RIGHT, MISSED = "is_right", "missed"
"""Columns that a person fills in: of a sampled building, and of a sampled place."""

DOUBTFUL = 0.1
"""Share of the places that are sampled as the doubtful ones: half of the sample is taken from them."""

WINDOW_CELLS = 32
"""Height and width in cells of the windows that are read."""

DRAWS, SEED = 20_000, 12
"""Number of draws from which the interval of recall is taken, and their seed."""

Z = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True, slots=True)
class ReviewSettings:
    """What of a run is put before a person.

    Attributes:
        out: Folder of the review; `<run folder>_review` in the working folder by default.
        cell_m: Side of the squares that are ranked, in meters; in pixels without a CRS.
        most: Number of squares and of buildings to list, the most doubtful first.
        sample: Number of buildings and of squares that are drawn for a check; 0 for none.
        seed: Of the draw.
        overwrite: Replace an existing review.
    """

    out: str | Path | None = None
    cell_m: float = 15.0
    most: int = 1000
    sample: int = 0
    seed: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        rules = [
            (self.cell_m > 0, f"`cell_m={self.cell_m}` is not above 0. Give meters, such as 15."),
            (self.most > 0, f"`most={self.most}` is below 1. Give a number, such as 1000."),
            (self.sample >= 0, f"`sample={self.sample}` is below 0. Give a number, such as 50."),
        ]
        for fits, message in rules:
            if not fits:
                raise UsageError(message)


@dataclass(frozen=True, slots=True)
class Review:
    """A review of a run.

    Attributes:
        folder: Where it was written.
        report: The contents of `review.json`.
    """

    folder: Path
    report: dict[str, Any]

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [str(self.folder / name) for name in (LAYERS, REPORT)]


def review_run(run: str | Path, settings: ReviewSettings | None = None) -> Review:
    """Rank squares and buildings of a finished run by doubt, and draw a sample of both for a check.

    The doubt of a square is the area in it that is wrong if the probabilities are right: of each pixel the probability
    of a building where none is mapped, and the opposite where one is. The doubt of a building is how far its confidence
    is from 1.

    Args:
        run: Result folder of a run on this machine.
        settings: See `ReviewSettings`.

    Raises:
        MissingFileError: If the folder holds no finished run.
        ScoredFileError: If its files cannot be read.
        ExistingResultError: If there is a review, which is not to be replaced: it may hold answers.
        OutputError: If it cannot be written. Nothing is left behind.
    """
    from geoseg.run.ledger import read_report  # dask is needed for this alone

    settings, folder = settings or ReviewSettings(), Path(run)
    require_run(folder, PROBABILITY, FOOTPRINTS)
    report, probability = read_report(LocalStore(folder), "threshold"), folder / PROBABILITY
    assert report is not None
    out = Path(settings.out or f"{folder.absolute().name}_review")
    check_out(out, (LAYERS, REPORT), overwrite=settings.overwrite, holding=", perhaps with your answers")
    grid = grid_of(probability)
    cells = measure_cells(StoredRaster(str(probability)), grid, settings.cell_m, float(report["threshold"]))
    close_readers()
    footprints = read_footprints(folder)

    order = np.argsort(-cells.doubt, kind="stable")
    worst = cells.take(order[: settings.most])
    layers = {PLACES: worst.frame(grid, rank=np.arange(1, len(worst) + 1))}
    has_confidence = "confidence" in footprints
    if has_confidence:
        doubt = 1 - footprints["confidence"].to_numpy(np.float64)
        chosen = np.argsort(-doubt, kind="stable")[: settings.most]
        listed = footprints.iloc[chosen]
        layers[BUILDINGS] = listed.assign(rank=np.arange(1, len(listed) + 1), doubt=np.round(doubt[chosen], 4))
    if settings.sample:
        layers |= _draw_sample(cells, order, footprints, grid, settings)
    found = {
        "geoseg": __version__,
        "run": str(folder),
        "settings": {name: getattr(settings, name) for name in ("cell_m", "most", "sample", "seed")},
        "counts": {"places": len(cells), "buildings": len(footprints)},
        "unit": "m" if grid.gsd_m else "px",
        "expected_wrong": float(cells.doubt.sum()),
        "layers": {name: len(frame) for name, frame in layers.items()},
    }
    styles = {
        PLACES: plain_qml("230,0,60"),
        BUILDINGS: plain_qml("255,87,34"),
        SAMPLED_BUILDINGS: form_qml("0,200,255", IS_RIGHT, {"right": "1", "wrong": "0"}),
        SAMPLED_PLACES: form_qml("255,214,0", MISSED, {str(n): str(n) for n in range(21)}),
    }
    write_out(out, (LAYERS, REPORT), layers, {name: styles[name] for name in layers}, found)
    return Review(out, found)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Squares of a raster that have data.

    Attributes:
        row: First row of pixels, `(cell,)`.
        col: First column of pixels, `(cell,)`.
        size: Height and width in pixels; squares at the border are cut.
        doubt: Area that is expected to be wrong, in square meters or, without a CRS, in pixels, `(cell,)`.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    size: tuple[int, int]
    doubt: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of squares."""
        return len(self.doubt)

    def take(self, index: NDArray[Any]) -> "Cells":
        """Select squares."""
        return Cells(self.row[index], self.col[index], self.size, self.doubt[index])

    def frame(self, grid: Grid, **columns: Any) -> "GeoDataFrame":
        """Return the squares as polygons in the CRS of the grid, with more columns."""
        import geopandas

        last = np.minimum(self.row + self.size[0], grid.height), np.minimum(self.col + self.size[1], grid.width)
        boxes = shapely.box(self.col, self.row, last[1], last[0])
        shapes = shapely.transform(boxes, lambda xy: np.column_stack(grid.transform @ (xy[:, 0], xy[:, 1])))
        return geopandas.GeoDataFrame({**columns, "doubt_m2": np.round(self.doubt, 2)}, geometry=shapes, crs=grid.crs)


def measure_cells(probability: Raster, grid: Grid, cell_m: float, threshold: float) -> Cells:
    """Measure the doubt of all squares of a raster of stored probabilities, window by window.

    Args:
        probability: Stored probabilities.
        grid: Its grid.
        cell_m: Side of the squares in meters; in pixels without a CRS.
        threshold: Smallest probability of a building.
    """
    gsd = grid.gsd_m or (1.0, 1.0)
    size = max(1, round(cell_m / gsd[1])), max(1, round(cell_m / gsd[0]))
    stored = np.arange(PROBABILITY_ONE + 1) / PROBABILITY_ONE
    wrong = np.zeros(256)
    wrong[: PROBABILITY_ONE + 1] = np.where(stored >= threshold, 1 - stored, stored) * gsd[0] * gsd[1]
    found: list[tuple[Any, ...]] = []
    for window in _windows(grid, size):
        pixels = probability.read(window)
        rows, cols = np.arange(0, window.height, size[0]), np.arange(0, window.width, size[1])
        has_data, doubt = (
            np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
            for values in ((pixels != NODATA).astype(np.int64), wrong[pixels])
        )
        i, j = np.nonzero(has_data)
        found.append((window.row + rows[i], window.col + cols[j], doubt[i, j]))
    row, col, doubt = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Cells(row, col, size, doubt)


def _windows(grid: Grid, size: tuple[int, int]) -> Iterator[Window]:
    """Yield windows of whole cells that cover a grid."""
    height, width = (max(1, min(WINDOW_CELLS, 2048 // side)) * side for side in size)
    for row in range(0, grid.height, height):
        for col in range(0, grid.width, width):
            yield Window(row, col, min(height, grid.height - row), min(width, grid.width - col))


def _draw_sample(
    cells: Cells, order: NDArray[np.int64], footprints: "GeoDataFrame", grid: Grid, settings: ReviewSettings
) -> dict[str, "GeoDataFrame"]:
    """Draw buildings, and squares of two strata: the doubtful ones and the others, half of the sample from each.

    The columns that a person fills in are empty; `of` says how many there are to draw from.
    """
    import pandas

    rng, count = np.random.default_rng(settings.seed), settings.sample
    picked = np.sort(rng.choice(len(footprints), min(count, len(footprints)), replace=False))
    nothing = pandas.array([None] * len(picked), dtype="Int32")
    buildings = footprints.iloc[picked].assign(**{IS_RIGHT: nothing}, of=len(footprints))
    doubtful = int(np.ceil(DOUBTFUL * len(cells)))
    strata = [("doubtful", order[:doubtful], count - count // 2), ("other", order[doubtful:], count // 2)]
    drawn, names, sizes = [], [], []
    for name, members, wanted in strata:
        drawn.append(rng.choice(members, min(wanted, len(members)), replace=False))
        names += [name] * len(drawn[-1])
        sizes += [len(members)] * len(drawn[-1])
    mixed = rng.permutation(len(names))  # a person should not see from the order which ones are doubtful
    chosen = cells.take(np.concatenate(drawn)[mixed])
    facts = {MISSED: pandas.array([None] * len(names), dtype="Int32")}
    places = chosen.frame(grid, **facts, stratum=np.array(names)[mixed], of=np.array(sizes)[mixed])
    return {SAMPLED_BUILDINGS: buildings, SAMPLED_PLACES: places.drop(columns="doubt_m2")}


@dataclass(frozen=True, slots=True)
class Answers:
    """How good a run is by the answers of a person.

    Attributes:
        buildings: Number of buildings that were checked.
        right: Number of them that are right.
        places: Number of squares that were checked.
        missed: Number of missed buildings in them.
        open_buildings: Number of sampled buildings without an answer.
        open_places: Number of sampled squares without an answer.
        precision: Share of the buildings that are right.
        precision_interval: Its interval of 95 %.
        recall: Estimated share of the true buildings that were found.
        recall_interval: Its interval of 95 %.
    """

    buildings: int
    right: int
    places: int
    missed: int
    open_buildings: int
    open_places: int
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval

    def table(self) -> str:
        """Return the figures as a Markdown table."""

        def row(name: str, value: float, interval: Interval, from_what: str) -> list[str]:
            return [name, f"{value:.3f}", f"{interval[0]:.3f} to {interval[1]:.3f}", from_what]

        checked = plural(self.buildings, "building")
        return write_table(
            ("", "estimate", "95 %", "from"),
            [
                row("precision", self.precision, self.precision_interval, f"{checked}, {self.right:,} right"),
                row(
                    *("recall", self.recall, self.recall_interval),
                    f"{plural(self.places, 'place')} with {plural(self.missed, 'missed building')}",
                ),
            ],
        )


def count_answers(path: str | Path) -> Answers:
    """Estimate precision and recall from the sample of a review that a person has filled in.

    Precision is the share of the sampled buildings that are right, with the interval of Wilson, "Probable inference,
    the law of succession, and statistical inference", JASA 22, 1927. The number of missed buildings is estimated for
    each stratum as the mean of the sampled squares times the number of squares, and recall is `right / (right +
    missed)` of the whole map. Its interval is that of draws from what the answers leave open: a beta distribution for
    precision, a gamma distribution for the mean of each stratum, both with Jeffreys' prior; the latter is widened by
    the ratio of variance and mean where missed buildings come in groups.

    Args:
        path: `review.gpkg` with answers: `is_right` 1 or 0 in the layer `sample_buildings`, and in `sample_places` the
            number of `missed` buildings whose center lies in the square. Rows without an answer are left out.

    Raises:
        LabelError: If the file has no sample or no answers, or an answer is no such number.
    """
    import geopandas
    from pyogrio import list_layers

    path = Path(path) / LAYERS if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise LabelError(f"There is no review in {path}. Give the review.gpkg that `geoseg review --sample` wrote.")
    try:
        names = [str(name) for name, _ in list_layers(path)]
        if not {SAMPLED_BUILDINGS, SAMPLED_PLACES} <= set(names):
            raise LabelError(f"{path} has no sample, only {', '.join(names)}. Make a review with `sample=50`.")
        buildings, places = (geopandas.read_file(path, layer=name) for name in (SAMPLED_BUILDINGS, SAMPLED_PLACES))
    except LabelError:
        raise
    except Exception as err:  # pyogrio raises several types without a common root
        raise LabelError(f"{path} cannot be read ({err}). Give the review.gpkg of a review.") from err
    judged = _answers(buildings, IS_RIGHT, path, most=1)
    counted = _answers(places, MISSED, path, most=None)
    if not len(judged) or not len(counted):
        what = SAMPLED_BUILDINGS if not len(judged) else SAMPLED_PLACES
        column = IS_RIGHT if not len(judged) else MISSED
        raise LabelError(
            f"No row of the layer {what} of {path} has an answer. Fill in the column {column} in QGIS, save, and run "
            "the same command again."
        )
    right, total = int(judged.sum()), int(buildings["of"].iloc[0])
    strata = [
        _Stratum(counted[group.index.intersection(counted.index)].to_numpy(np.float64), int(group["of"].iloc[0]))
        for _, group in places.groupby("stratum")
    ]
    lacking = [each for each in strata if not len(each.missed)]
    if lacking:
        raise LabelError(
            f"One of the two kinds of squares in the layer {SAMPLED_PLACES} of {path} has no answer at all. Fill in "
            f"the column {MISSED} of more squares, those without a missed building as 0."
        )
    missed = sum(each.missed.mean() * each.of for each in strata)
    precision = right / len(judged)
    rng = np.random.default_rng(SEED)
    found = rng.beta(right + 0.5, len(judged) - right + 0.5, DRAWS) * total
    lost = sum((each.draw(rng) for each in strata), np.zeros(DRAWS))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(found / (found + lost), [tail, 1 - tail])
    return Answers(
        buildings=len(judged),
        right=right,
        places=len(counted),
        missed=int(counted.sum()),
        open_buildings=len(buildings) - len(judged),
        open_places=len(places) - len(counted),
        precision=precision,
        precision_interval=_wilson(right, len(judged)),
        recall=precision * total / (precision * total + missed) if precision * total + missed else float("nan"),
        recall_interval=(float(low), float(high)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Stratum:
    """Numbers of missed buildings in the checked squares of a stratum, and how many squares it has."""

    missed: NDArray[np.float64]
    of: int = field(default=0)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw numbers of missed buildings in the whole stratum."""
        total, n = self.missed.sum(), len(self.missed)
        spread = max(1.0, self.missed.var(ddof=1) / self.missed.mean()) if n > 1 and total else 1.0
        return np.asarray(rng.gamma((total + 0.5) / spread, spread / n, DRAWS) * self.of)


def _answers(frame: "GeoDataFrame", column: str, path: Path, *, most: int | None) -> Any:
    """Return the answers in a column, without the rows that have none."""
    import pandas

    if column not in frame or "of" not in frame:
        raise LabelError(f"A layer of {path} has no column {column!r}. Give the review.gpkg of a review.")
    given = frame[column].replace("", None).dropna()
    numbers = pandas.to_numeric(given, errors="coerce")
    fits = numbers.notna() & (numbers >= 0) & (numbers == numbers.round())
    if most is not None:
        fits &= numbers <= most
    if not fits.all():
        wanted = "1 (right) or 0 (wrong)" if most is not None else "the number of missed buildings, or 0,"
        found = given[~fits].iloc[0]
        shown = f"{found:g}" if isinstance(found, float) else repr(found)
        raise LabelError(f"The column {column} of {path} has {shown}; {wanted} is expected. Correct it.")
    return numbers


def _wilson(right: int, total: int) -> Interval:
    """Return the interval of a share, see `count_answers`."""
    share, square = right / total, Z * Z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z / (1 + square / total) * np.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
