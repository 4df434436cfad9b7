"""Reports on a run: progress while it is running, `geoseg status` from any machine, and `run.json` at its end."""

import hashlib
import logging
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags

from geoseg._version import __version__
from geoseg.bundle import ModelSpec
from geoseg.errors import MissingFileError
from geoseg.gdal import GDAL_ERRORS
from geoseg.grid import Grid
from geoseg.inference import Plan, Stopwatch
from geoseg.io.datum import check_shift
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.io.tables import plural
from geoseg.mosaic import Composite
from geoseg.run.cluster import peak_memory_mb
from geoseg.run.job import Job
from geoseg.run.lease import LEASE_S, is_alive, read_holder
from geoseg.run.ledger import PLAN, RESULTS, Ledger, base_store, find_damage, read_plan, read_progress, read_report
from geoseg.run.record import BatchRecord, read_records
from geoseg.run.settings import Facts, RunSettings, VectorizeSettings, key_of
from geoseg.scene import Scene, gdal_env, open_raster
from geoseg.sources import identity
from geoseg.sources.files import RUN_FOLDER
from geoseg.sources.location import is_local
from geoseg.third_party import allow_no_georeference
from geoseg.vectorize import OutlineOptions

log = logging.getLogger(__name__)

T = TypeVar("T")

PACKAGES = ("torch", "torchgeo", "openvino", "rasterio", "geopandas", "shapely", "dask", "numpy")

FINISHED, WORKING, STOPPED, WAITING = "finished", "working", "stopped", "waiting"
INCOMPLETE, FAILED, OUTSIDE = "incomplete", "failed", "outside the AOI"

LOG_EVERY_S = 10.0


@dataclass(slots=True)
class Stages:
    """Clock that measures the wall time of each stage of a run, in seconds."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def done(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.seconds[stage], self._last = self.seconds.get(stage, 0.0) + now - self._last, now

    def restart(self) -> None:
        """Start the next stage now, on another machine or after waiting."""
        self._last = time.perf_counter()


@dataclass(slots=True)
class Counts:
    """Pixel counts of a scene; the area of classes is measured cell by cell, on the ellipsoid.

    Attributes:
        valid: Valid pixels inside the AOI.
        building: Building pixels of the mask.
        class_pixels: Pixels of each class.
        class_m2: Square meters of each class; zeros without a CRS.
    """

    valid: int = 0
    building: int = 0
    class_pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    class_m2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def describe_classes(self, spec: ModelSpec, grid: Grid) -> dict[str, dict[str, Any]]:
        """Return pixels, share of all pixels with a class, and square meters (None without a CRS) by class name."""
        total = max(1, int(self.class_pixels.sum()))
        return {
            name: {
                "pixels": int(pixels),
                "share": round(int(pixels) / total, 6),
                "area_m2": round(float(area_m2), 1) if grid.crs is not None else None,
            }
            for name, pixels, area_m2 in zip(spec.classes, self.class_pixels, self.class_m2, strict=False)
        }


@dataclass(slots=True)
class FootprintCounts:
    """Totals of the footprints of a scene.

    Attributes:
        count: Number of footprints.
        at_edge: Number of those at the edge of the data.
        area_m2: Total area in square meters.
    """

    count: int = 0
    at_edge: int = 0
    area_m2: float = 0.0


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What the client knows about a run whose blocks are done.

    Attributes:
        stages: The clock.
        facts: The facts that decide the result.
        token: Token of the client's lease, which must still be held when the results are published.
        failed: Errors of the blocks that failed, by name of the block; they are nodata.
        engine: Name and threads of the workers' engine; None if no block needed one.
        resumed: Number of blocks that an earlier client had done.
        write_s: Seconds that all threads spent on writing parts.
        worker_memory_mb: Largest peak memory of a worker.
    """

    stages: Stages
    facts: Facts
    token: str
    failed: dict[str, str] = field(default_factory=dict)
    engine: tuple[str, int] | None = None
    resumed: int = 0
    write_s: float = 0.0
    worker_memory_mb: float | None = None


def describe_run(
    job: Job, summary: RunSummary, watches: Sequence[Stopwatch], pixels: Counts, footprints: FootprintCounts
) -> dict[str, Any]:
    """Return the report of a finished run: the contents of `run.json`."""
    plan, spec, stages = job.plan, job.bundle.spec, summary.stages
    wall = sum(stages.seconds.values())
    names = dict.fromkeys(name for watch in watches for name in watch.seconds)
    in_blocks = {name: sum(watch.seconds.get(name, 0.0) for watch in watches) for name in names}
    in_blocks["write"] = summary.write_s
    engine, threads = summary.engine or (None, 1)
    failed = [  # where the result is nodata, and the reason
        {
            "block": block.name,
            "rows": [block.window.rows.start, block.window.rows.stop],
            "cols": [block.window.cols.start, block.window.cols.stop],
            "bounds": plan.scene.grid.crop(block.window).bounds,
            "error": summary.failed[block.name],
        }
        for block in (job.blocks() if summary.failed else [])
        if block.name in summary.failed
    ]
    return {
        "geoseg": __version__,
        "started": stages.began.isoformat(timespec="seconds"),
        "command": sys.argv,
        "scene": _describe_scene(plan),
        "key": key_of(summary.facts),
        "run": job.ledger.run,
        "facts": summary.facts,
        "model": {
            "name": spec.name,
            "version": spec.version,
            "key": job.bundle.key,
            "license": spec.license,
            "classes": list(spec.classes),
            "class_colors": list(spec.class_colors),
            "target": spec.target,
            "confidence": spec.confidence,
        },
        "settings": describe_settings(job.settings),
        **describe_outlines(job.outlines, job.settings.threshold or spec.threshold),
        "engine": engine,
        "threads": threads,
        "lattice": {"chip": plan.lattice.chip_shape, "core": plan.lattice.core, "halo_px": plan.lattice.halo_px},
        "counts": {
            "blocks": len(watches),
            "blocks_done_before": summary.resumed,
            "blocks_failed": len(summary.failed),
            "chips": sum(w.chips for w in watches),
            "pixels": plan.scene.grid.height * plan.scene.grid.width,
            "valid_pixels": pixels.valid,
            "building_pixels": pixels.building,
            "buildings": footprints.count,
            "buildings_at_edge": footprints.at_edge,
        },
        "classes": pixels.describe_classes(spec, plan.scene.grid) if plan.has_class_raster else None,
        "area_m2": round(footprints.area_m2, 1),
        "datum_shifts": _describe_shifts(plan),
        "failed_blocks": failed,
        "seconds": {key: round(value, 3) for key, value in stages.seconds.items()} | {"total": round(wall, 3)},
        "thread_seconds_in_blocks": {key: round(value, 3) for key, value in in_blocks.items()},
        "network_share_of_wall": round(in_blocks.get("network", 0.0) / threads / wall, 4) if wall else 0.0,
        "peak_memory_mb": peak_memory_mb(),
        "worker_peak_memory_mb": summary.worker_memory_mb,
        "versions": package_versions(),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
    }


def warn_if_blank(report: Mapping[str, Any]) -> None:
    """Log a warning if a result is nodata everywhere, though no block failed."""
    counts, scene = report["counts"], report["scene"]["name"]
    if not counts["valid_pixels"] and not counts["blocks_failed"]:
        where = " in the AOI" if report["settings"].get("aoi") is not None else ""
        log.warning(
            "%s has no pixel with data%s: the result is nodata everywhere. Check its nodata value, its alpha band and "
            "its mask; `nodata` sets another value, and `alpha=False` says that alpha is an image.",
            scene,
            where,
        )


def describe_files(folder: Path, names: Sequence[str] = RESULTS[:-1]) -> dict[str, dict[str, Any]]:
    """Return size and checksum of the files of a result; of all but its report by default."""
    found = {}
    for name in names:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
    return found


def describe_settings(settings: RunSettings | VectorizeSettings) -> dict[str, Any]:
    """Return settings as plain types."""
    plain = (bool, int, float, list, tuple, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in asdict(settings).items()}


def describe_outlines(outlines: OutlineOptions, threshold: float | None) -> dict[str, float | None]:
    """Return how buildings were outlined, with what was not given; the threshold before it was rounded."""
    return {
        "threshold": threshold,
        "min_area_m2": outlines.limits.min_area_m2,
        "fill_holes_m2": outlines.limits.fill_holes_m2,
        "split_depth": outlines.split.depth if outlines.split is not None else 1.0,
    }


def _describe_scene(plan: Plan) -> dict[str, Any]:
    """Describe a scene and how it is read; for a mosaic also its scenes, the topmost first."""
    scene, parts = plan.scene, None
    if isinstance(scene, Composite):
        parts = [
            {
                "name": part.scene.name,
                "paths": _describe_paths(part.scene),
                "crs": part.scene.native.crs.to_string() if part.scene.native.crs is not None else None,
                "gsd_m": part.scene.native.gsd_m,
                "bands": part.scene.bands,
                "band_count": part.scene.band_count,
                "levels": part.scene.levels,
                "alpha_bands": _alpha_bands(part.scene),
                "nodata": part.scene.given_nodata,
            }
            for part in scene.parts
        ]
    return {
        "name": scene.name,
        "paths": _describe_paths(scene),
        "crs": scene.grid.crs.to_string() if scene.grid.crs is not None else None,
        "native": {
            "shape": scene.native.shape,
            "gsd_m": scene.native.gsd_m,
            "dtype": scene.dtype,
            "bands": scene.band_count,
        },
        "grid": {
            "shape": scene.grid.shape,
            "gsd_m": scene.grid.gsd_m,
            "bounds": scene.grid.bounds,
            "transform": list(scene.grid.transform)[:6],
        },
        "bands": scene.bands,
        "levels": scene.levels,
        "alpha_bands": _alpha_bands(scene),
        "mosaic": parts,
    }


def _describe_paths(scene: Scene) -> list[str]:
    """Return the files of a scene, with absolute paths."""
    return [identity(path) if is_local(path) else path for path in scene.paths]


def _alpha_bands(scene: Scene) -> list[int | None]:
    """Return for each file of a scene which band is alpha; a mask in a file is one more than its bands, as in QGIS."""
    alpha = set(range(1, scene.band_count + 1)) - set(scene.data_bands)
    if alpha or not scene.file_has_mask or scene.nodata is not None:
        return [min(alpha, default=None) for _ in scene.paths]
    is_alone = len(scene.paths) == 1
    return [scene.band_count + 1 if is_alone or _has_mask(path) else None for path in scene.paths]


def _has_mask(path: str) -> bool:
    """Return True if a file has a mask in it; False also if it can no longer be opened."""
    try:
        with gdal_env([path]), allow_no_georeference(), open_raster(path) as src:
            return MaskFlags.per_dataset in src.mask_flag_enums[0]
    except GDAL_ERRORS:
        return False


def _describe_shifts(plan: Plan) -> list[dict[str, Any]]:
    """Describe how the AOI and the scenes of a mosaic came into the CRS of the results, where they were in another."""
    grid, shifts = plan.scene.grid, [plan.aoi.shift if plan.aoi is not None else None]
    if isinstance(plan.scene, Composite):
        scenes = [part.scene for part in plan.scene.parts]
        shifts += [check_shift(f"scene {scene.name}", scene.native.crs, grid) for scene in scenes]
    return [shift.describe() for shift in shifts if shift is not None]


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that a result depends on."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Status of one run.

    Attributes:
        name: Name of the scene.
        url: The run folder.
        state: `finished`, `incomplete` (finished, but files have gone or changed since), `working`, `stopped` (the
            same command continues), and in a batch `waiting` (not begun), `failed` or `outside the AOI`.
        blocks: Total number of blocks.
        done: Number of finished blocks.
        failed: Errors of the blocks that failed, by name of the block.
        eta_s: Estimated seconds left; None if no client is working or the rate is not known yet.
        holder: The client that is working on it, or was last: process, host, user, since.
        dashboard: Address of the cluster's dashboard.
        error: What a scene of a batch failed with.
        damage: What is wrong with the files of an incomplete result.
        is_listed: False for a result in the folder of a batch that is not one of its scenes.
        buildings: Number of footprints of a finished run.
        area_m2: Their area in square meters; in pixels without a CRS.
        seconds: Wall time of a finished run, of its last session.
    """

    name: str
    url: str
    state: str
    blocks: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    eta_s: float | None = None
    holder: dict[str, Any] | None = None
    dashboard: str | None = None
    error: str | None = None
    damage: tuple[str, ...] = ()
    is_listed: bool = True
    buildings: int | None = None
    area_m2: float | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is known for other programs, as `geoseg status --json` prints it."""
        return {
            "scene": self.name,
            "state": self.state,
            "url": self.url,
            "blocks": self.blocks,
            "done": self.done,
            "failed": len(self.failed),
            "left": self.left,
            "eta_s": self.eta_s,
            "buildings": self.buildings,
            "area_m2": self.area_m2,
            "seconds": self.seconds,
            "error": self.error,
            "damage": list(self.damage),
            "failed_blocks": self.failed,
            "client": self.holder if self.state == WORKING else None,
            "dashboard": self.dashboard,
            "in_batch": self.is_listed,
        }

    @property
    def left(self) -> int:
        """Number of blocks that are neither done nor failed."""
        return max(0, self.blocks - self.done - len(self.failed))


def read_status(location: str | Path) -> list[RunStatus]:
    """Return the status of a run, or of every run of a batch in its order.

    Args:
        location: A run folder, or the folder of a batch: a path or `s3://bucket/prefix`.

    Raises:
        MissingFileError: If there is no run, or the location is a file.
        RunFolderError: If `run.json` or `plan.json` is damaged.
    """
    out = open_store(str(location).rstrip("/") or "/")
    if isinstance(out, LocalStore) and out.folder.is_file():
        raise MissingFileError(f"{out.url} is a file; a run folder is expected. Give the folder that was its `out`.")
    own = _status_of(out)
    if own is not None:
        return [own]
    records, results = read_records(out), _result_names(out)
    if not records and not results:
        raise MissingFileError(
            f"There is no run in {out.url}: neither {RUN_FOLDER}/{PLAN} nor run.json. "
            "Give the folder that was its `out`."
        )
    found = {name: _status_in(record, name, out) for record in records for name in record.paths}
    others = {name: _status_of(open_store(f"{out.url}/{name}")) for name in results if name not in found}
    return [*found.values(), *(replace(one, is_listed=not records) for one in others.values() if one is not None)]


def _status_in(record: BatchRecord, name: str, out: Store) -> RunStatus:
    """Return the status of a scene of a batch; its failure counts until another run has come of it."""
    store = open_store(f"{out.url}/{name}")
    found, failure = _status_of(store), record.failed.get(name)
    if failure is not None and (found is None or found.state != WORKING):
        report = read_report(store) or {}
        if report.get("run") == failure.get("run"):
            return replace(found or RunStatus(name, store.url, FAILED), state=FAILED, error=str(failure.get("error")))
    return found or RunStatus(name, store.url, OUTSIDE if name in record.outside else WAITING)


def _status_of(out: Store) -> RunStatus | None:
    """Return the status of the run in a folder; None if there is none."""
    base = base_store(out)
    plan, report = read_plan(base), read_report(out)
    if plan is None or (report is not None and report.get("run") == plan.get("run")):
        if report is None or "counts" not in report:
            return None
        failed = {str(entry.get("block")): str(entry.get("error")) for entry in report.get("failed_blocks") or []}
        blocks, damage = int((report["counts"] or {}).get("blocks") or 0), find_damage(out, report)
        return RunStatus(
            name=str((report.get("scene") or {}).get("name")),
            url=out.url,
            state=INCOMPLETE if damage else FINISHED,
            blocks=blocks + len(failed),
            done=blocks,
            failed=failed,
            damage=tuple(f"{name} {what}" for name, what in damage.items()),
            buildings=(report["counts"] or {}).get("buildings"),
            area_m2=report.get("area_m2"),
            seconds=(report.get("seconds") or {}).get("total"),
        )

    ledger, now = Ledger.of(out, plan), time.time()
    holder, progress = read_holder(base), read_progress(base)
    alive = None if holder is None else is_alive(holder)
    if holder is not None and alive is None:  # on another machine: it works if it reported within its lease
        alive = now - float(progress.get("now", 0)) < LEASE_S
    done, blocks, failed = len(ledger.done()), int(plan["blocks"]), ledger.failed()
    eta_s = None
    if alive:  # at the rate of this client since it started
        since, took_s = done - int(progress.get("done_before", 0)), now - float(progress.get("session_began", now))
        if since > 0 and took_s > 0:
            eta_s = took_s / since * (blocks - done - len(failed))
    return RunStatus(
        name=str(plan.get("name")),
        url=out.url,
        state=WORKING if alive else STOPPED,
        blocks=blocks,
        done=done,
        failed=failed,
        eta_s=eta_s,
        holder=holder,
        dashboard=progress.get("dashboard") if alive else None,
    )


def _result_names(out: Store) -> Sequence[str]:
    """Return the names of the folders in a folder that have a run."""
    wanted = ("run.json", f"{RUN_FOLDER}/{PLAN}")
    if isinstance(out, LocalStore):
        folders = sorted(out.folder.iterdir()) if out.folder.is_dir() else []
        return [folder.name for folder in folders if any((folder / name).is_file() for name in wanted)]
    endings = tuple(f"/{name}" for name in wanted)
    return sorted({name.split("/")[0] for name in out.names("") if name.endswith(endings) and "/" in name})


def track(items: Iterable[T], *, total: int, what: str, quiet: bool = False) -> Iterator[T]:
    """Yield items and show progress: a bar with an ETA on a terminal, log lines otherwise.

    Args:
        items: Items that are done when they are yielded.
        total: Number of items.
        what: Noun for an item.
        quiet: Show nothing.
    """
    if quiet:
        yield from items
    elif sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, unit=what, desc="geoseg", file=sys.stderr)
    else:
        first = last = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if done == 1:  # the first item waits for the network to load, so the ETA ignores it
                first = now
            if done == total:
                log.info("%d of %s done", done, plural(total, what))
            elif done > 1 and now - last >= LOG_EVERY_S:
                last, left_s = now, (now - first) / (done - 1) * (total - done)
                log.info("%d of %s done, about %.0f s left", done, plural(total, what), left_s)
