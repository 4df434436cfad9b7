"""One layer of all results of a batch, with the name of the scene and the day on which it was taken."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from pyproj import CRS, Transformer

from geoseg.errors import ExistingResultError, MissingCRSError, MissingFileError, UsageError
from geoseg.gdal import transforming
from geoseg.io.aside import check_folder, require_closed, write_aside
from geoseg.io.store import Store, open_store
from geoseg.io.tables import name_some, plural
from geoseg.outputs.batches import BATCH, ROW_GROUP, boxes_of, rebatch, sort_along_curve
from geoseg.outputs.footprints import FORMATS
from geoseg.outputs.geoparquet import read_batches, read_crs
from geoseg.run.ledger import read_report
from geoseg.run.record import read_records
from geoseg.run.report import FINISHED, RunStatus, read_status
from geoseg.run.results import open_local
from geoseg.scene import parse_crs

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

PARQUET = "buildings.parquet"

PLACED = ("geometry", "bbox")
"""Columns that depend on the CRS."""

OVERLAP = 0.01
"""Extents of two scenes overlap if they share at least this part of the smaller one."""


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """How the results of a batch become one layer.

    Attributes:
        out: The file, whose suffix says the format; `<folder>_buildings.gpkg` in the working folder by default.
        target_crs: CRS of the layer; that of the first scene by default.
        overwrite: Replace an existing file.
    """

    out: str | Path | None = None
    target_crs: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The layer of a batch.

    Attributes:
        path: The file.
        scenes: Names of the scenes in it.
        left_out: Names of the scenes that are not finished.
        buildings: Number of footprints.
    """

    path: Path
    scenes: list[str]
    left_out: list[str]
    buildings: int


def merge_results(location: str | Path, settings: MergeSettings | None = None) -> MergeResult:
    """Write the footprints of all finished scenes of a batch into one layer with the columns `scene` and `date`.

    Scenes that are not finished are left out, with a warning. Where scenes overlap, their buildings are in the layer
    several times, with a warning: a mosaic has them once. Memory does not grow with the number of footprints.

    Args:
        location: The folder of a batch, a path or `s3://bucket/prefix`.
        settings: See `MergeSettings`.

    Raises:
        MissingFileError: If there is no batch, or none of its scenes is finished.
        MissingCRSError: If a scene has no CRS.
        UsageError: If the suffix is that of no format, or the scenes were mapped by models with other columns.
        ExistingResultError: If the file exists, which is not to be replaced.
        OutputError: If it cannot be written; nothing of it is left then.
    """
    settings, base = settings or MergeSettings(), open_store(str(location).rstrip("/") or "/")
    path = Path(settings.out or f"{base.url.rsplit('/', 1)[-1]}_buildings.gpkg")
    writers = {each.suffix: each for each in FORMATS.values()}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        suffixes = ", ".join(writers)
        raise UsageError(f"`out={path}` has the suffix of no format. Give a file that ends in one of {suffixes}.")
    check_folder(path.parent)
    if path.exists() and not settings.overwrite:
        raise ExistingResultError(
            f"{path} exists. Choose another file with `out`, or replace it with `overwrite=True`."
        )
    if path.exists():
        require_closed(path)
    listed = read_status(location)
    done = [one for one in listed if one.state == FINISHED]
    left_out = [one.name if one.name in one.url else one.url for one in listed if one.state != FINISHED]
    if not done:
        raise MissingFileError(f"None of the {plural(len(listed), 'scene')} in {base.url} is finished. Run them first.")
    if left_out:
        log.warning(
            "%s of %s not finished and left out: %s", len(left_out), plural(len(listed), "scene"), name_some(left_out)
        )
    days = {name: day for record in read_records(base) for name, day in record.days.items()}
    with tempfile.TemporaryDirectory(prefix="geoseg-merge-") as folder:
        parts = _Parts.open(done, Path(folder), days, settings.target_crs)
        count = 0

        def counted() -> Iterator["pyarrow.RecordBatch"]:
            nonlocal count
            for batch in parts.batches():
                count += len(batch)
                yield batch

        merged = sort_along_curve(rebatch(counted(), BATCH), parts.bounds, Path(folder) / "unsorted.arrow")
        batches = rebatch(merged, ROW_GROUP)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(path) as aside:
            writer.write(batches, parts.schema, parts.crs, aside)
    return MergeResult(path, [name for name, *_ in parts.scenes], left_out, count)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The footprints of scenes, on their way into one CRS.

    Attributes:
        scenes: Name, file, CRS and day of each.
        crs: CRS of the layer.
        bounds: Left, bottom, right, top of all scenes in it.
        schema: Of the batches.
    """

    scenes: list[tuple[str, Path, CRS, str | None]]
    crs: CRS
    bounds: tuple[float, float, float, float]
    schema: "pyarrow.Schema"

    @classmethod
    def open(cls, done: list[RunStatus], folder: Path, days: Mapping[str, str], target_crs: str | None) -> "_Parts":
        """Open the results of scenes; those in a bucket are copied into a local folder."""
        import pyarrow.parquet as pq

        scenes, extents = [], []
        for number, status in enumerate(done):
            store = open_store(status.url)
            name = status.url.rsplit("/", 1)[-1]
            path = _local_copy(store, folder / f"{number}.parquet")
            crs = read_crs(path)
            if crs is None:
                raise MissingCRSError(
                    f"The result {status.url} has no CRS, so it has no place in one layer with others. Run the scene "
                    "with `crs`, or leave its folder out."
                )
            scenes.append((name, path, crs, days.get(name)))
            report = read_report(store) or {}
            extents.append(report["scene"]["grid"]["bounds"])
        crs = CRS.from_user_input(parse_crs(target_crs, "target_crs").to_wkt()) if target_crs else scenes[0][2]
        boxes = []
        for (_, _, own, _), box in zip(scenes, extents, strict=True):
            with transforming(own, crs):
                boxes.append(Transformer.from_crs(own, crs, always_xy=True).transform_bounds(*box))
        _warn_of_overlaps([name for name, *_ in scenes], boxes)
        low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
        schemas = [pq.read_schema(path) for _, path, *_ in scenes]
        for (name, *_), schema in zip(scenes, schemas, strict=True):
            if schema.names != schemas[0].names:
                other = sorted(set(schema.names) ^ set(schemas[0].names))
                raise UsageError(
                    f"The results of {scenes[0][0]} and {name} have not the same columns: one of them lacks "
                    f"{', '.join(other)}. Merge results of one version of geoseg and one kind of model."
                )
        parts = cls(scenes, crs, (*low.tolist(), *high.tolist()), schemas[0])
        first = next(iter(parts.batches()))
        return cls(parts.scenes, crs, parts.bounds, first.schema)

    def batches(self) -> Iterator["pyarrow.RecordBatch"]:
        """Yield the footprints of all scenes with `scene` and `date`, in the CRS of the layer."""
        import pyarrow as pa

        for name, path, crs, day in self.scenes:
            with transforming(crs, self.crs):
                transformer = Transformer.from_crs(crs, self.crs, always_xy=True) if crs != self.crs else None
            for batch in read_batches(path):
                columns: dict[str, Any] = {
                    key: batch[key] for key in batch.schema.names if key not in ("geometry", "bbox")
                }
                columns["scene"] = pa.array([name] * len(batch), pa.string())
                columns["date"] = pa.array([day and date.fromisoformat(day)] * len(batch), pa.date32())
                shapes = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
                if transformer is not None:
                    with transforming(crs, self.crs):
                        shapes = shapely.transform(shapes, transformer.transform, interleaved=False)
                columns["geometry"] = pa.array(shapely.to_wkb(shapes).tolist(), pa.binary())
                columns["bbox"] = boxes_of(shapely.bounds(shapes))
                yield pa.record_batch(columns)


def _local_copy(store: Store, path: Path) -> Path:
    """Return the footprints of a result as a local file, those in a bucket as a copy."""
    with open_local(store, [PARQUET]) as local:
        found = local.folder / PARQUET  # type: ignore[attr-defined]
        if local is store:
            return Path(found)
        path.write_bytes(found.read_bytes())
    return path


def _warn_of_overlaps(names: list[str], boxes: list[Any]) -> None:
    """Say which scenes overlap: their buildings come twice."""
    shapes = shapely.box(*np.array(boxes).T)
    i, j = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    i, j = i[i < j], j[i < j]
    shared = shapely.area(shapely.intersection(shapes[i], shapes[j]))
    overlaps = np.flatnonzero(shared > OVERLAP * np.minimum(shapely.area(shapes[i]), shapely.area(shapes[j])))
    if len(overlaps):
        pairs = [f"{names[i[k]]} and {names[j[k]]}" for k in overlaps]
        log.warning(
            "The extents of %s overlap (%s): buildings there may be in the layer several times. A run with `mosaic` "
            "has each once.",
            *(f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of scenes", name_some(pairs)),
        )
