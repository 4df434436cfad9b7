"""Run one scene, a mosaic of several, or any inputs: from scenes to rasters, footprints and a report."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from geoseg.bundle import Bundle, load_bundle
from geoseg.errors import DamagedPartError, GeosegError, OutsideAOIError, UsageError
from geoseg.inference import EngineRecipe, Plan, open_probability, plan_inference, plan_mosaic, read_aoi_bounds
from geoseg.io.store import LocalStore, Store, open_store
from geoseg.io.tables import plural
from geoseg.run.batch import BatchResult, find_sources, run_sources
from geoseg.run.cluster import computing_threads, dashboard_of, limit_memory, open_client
from geoseg.run.job import call_on_worker, prepare_process
from geoseg.run.ledger import RESULTS, read_json
from geoseg.run.record import require_no_batch
from geoseg.run.report import Stages, track, warn_if_blank
from geoseg.run.results import IN_THREADS, finish_run
from geoseg.run.schedule import map_tasks, run_tasks
from geoseg.run.session import Session, open_session
from geoseg.run.settings import RunSettings
from geoseg.scene import Paths, close_idle_readers, close_readers
from geoseg.sources import SceneSource, filter_sources
from geoseg.vectorize import Spread

if TYPE_CHECKING:
    import xarray
    from distributed import Client
    from geopandas import GeoDataFrame

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """The results of a run.

    Attributes:
        out: The run folder.
        report: The contents of `run.json`.
        is_new: False if the result existed already.
    """

    out: Store
    report: dict[str, Any]
    is_new: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return what other programs ask for, as `geoseg run --json` prints it."""
        counts = self.report["counts"]
        return {
            "out": self.out.url,
            "files": self.paths,
            "is_new": self.is_new,
            "buildings": counts["buildings"],
            "area_m2": self.report["area_m2"],
            "valid_pixels": counts["valid_pixels"],
            "failed_blocks": len(self.report.get("failed_blocks") or ()),
            "seconds": self.report["seconds"],
            "peak_memory_mb": self.report["peak_memory_mb"],
        }

    @property
    def folder(self) -> Path:
        """The run folder, if it is local."""
        return Path(self.out.url)

    @property
    def footprints(self) -> "GeoDataFrame":
        """The footprints, read from `buildings.parquet` at every access."""
        import geopandas

        return geopandas.read_parquet(BytesIO(self.out.read("buildings.parquet")))

    @property
    def probability(self) -> "xarray.DataArray":
        """The probability of the target, read lazily from `probability.tif`; see `geoseg.predict_scene`."""
        return open_probability(f"{self.out.url}/probability.tif")

    @property
    def paths(self) -> list[str]:
        """The files of the result, in the order in which they are made."""
        return [f"{self.out.url}/{name}" for name in RESULTS if self.out.has(name)]


def run_inputs(inputs: Sequence[str | Path], settings: RunSettings, *, quiet: bool = False) -> RunResult | BatchResult:
    """Segment any inputs: each scene into a folder of its own in `out`, or all as one mosaic.

    A raster or a STAC Item that is the only input has its result in `out` itself. A folder, pattern, manifest or
    catalog does not, even if it has one scene today: results stay where they are when it has two.

    Args:
        inputs: What `geoseg.sources.list_sources` takes.
        settings: See `RunSettings`.
        quiet: Show no progress.

    Raises:
        GeosegError: See `run_scene` and `run_each`.
    """
    stages = Stages()
    sources = sources_within(find_sources(inputs, settings), settings)
    if settings.mosaic is not None:
        return run_mosaic(sources, settings, stages=stages, quiet=quiet)
    if len(inputs) > 1 or not sources[0].is_direct:
        if len(sources) > 1:
            log.info("%d scenes, each with a result of its own; `mosaic` combines them into one", len(sources))
        return run_sources(sources, settings, quiet=quiet)
    limit_memory()
    bundle, source = load_bundle(settings.model), sources[0]
    own = settings.for_source(source, settings.folder_of(source.name))
    return run_plan(plan_inference(source.paths, bundle, own), bundle, own, stages=stages, quiet=quiet)


def sources_within(sources: Sequence[SceneSource], settings: RunSettings) -> Sequence[SceneSource]:
    """Omit the scenes whose footprint in a catalog or manifest lies outside the AOI; they are not opened.

    The grid of a mosaic follows from its first scene or from the one with the smallest pixels, and must not depend on
    the AOI. So the first scene is kept, or all scenes if the smallest pixels decide.

    Raises:
        OutsideAOIError: If no scene is left.
    """
    is_mosaic = settings.mosaic is not None
    if settings.aoi is None or (is_mosaic and settings.grid == "scene"):
        return sources
    bounds = read_aoi_bounds(settings.aoi, where=settings.aoi_where)
    left = filter_sources(sources, bounds) if bounds is not None else sources
    if not left:
        raise OutsideAOIError(
            f"None of the {plural(len(sources), 'scene')} meets {settings.aoi_text}, according to the footprints in "
            "the catalog or manifest. Check both, or omit `aoi`."
        )
    if len(left) < len(sources):
        log.info("%d of %s outside the AOI", len(sources) - len(left), plural(len(sources), "scene"))
    kept = {id(source) for source in left}
    return [source for source in sources if id(source) in kept or (is_mosaic and source is sources[0])]


def run_scene(paths: Paths, settings: RunSettings | None = None, *, quiet: bool = False) -> RunResult:
    """Segment a scene and write rasters, footprints and a report; a run that was stopped is continued.

    Args:
        paths: A raster, a URL, a folder of rasters, or several of these that form one scene on one grid.
        settings: See `RunSettings`.
        quiet: Show no progress.

    Returns:
        The run folder and the report.

    Raises:
        UnfinishedError: If blocks failed; the others are kept, and the same call continues.
        GeosegError: For anything else that a user can fix. If no block was done, no file is left behind.
    """
    limit_memory()
    settings, stages = settings or RunSettings(), Stages()
    bundle = load_bundle(settings.model)
    return run_plan(plan_inference(paths, bundle, settings), bundle, settings, stages=stages, quiet=quiet)


def run_mosaic(
    sources: Sequence[SceneSource], settings: RunSettings, *, stages: Stages | None = None, quiet: bool = False
) -> RunResult:
    """Segment several scenes as one mosaic; polygons are joined across scenes as across blocks.

    Args:
        sources: The scenes, in the order in which the rule `first` prefers them.
        settings: See `RunSettings`; `mosaic` must be the rule for overlaps.
        stages: The clock, if it is running already.
        quiet: Show no progress.

    Raises:
        UsageError: If no rule is given.
        GeosegError: See `run_scene`.
    """
    if settings.mosaic is None:
        raise UsageError("A mosaic needs a rule for overlaps. Give `mosaic`: 'first', 'latest' or 'mean'.")
    limit_memory()
    bundle = load_bundle(settings.model)
    plan = plan_mosaic(sources, bundle, settings, rule=settings.mosaic, target_crs=settings.target_crs)
    return run_plan(plan, bundle, settings, stages=stages, quiet=quiet)


def run_plan(
    plan: Plan,
    bundle: Bundle,
    settings: RunSettings,
    *,
    stages: Stages | None = None,
    quiet: bool = False,
    client: "Client | None" = None,
) -> RunResult:
    """Execute a plan: predict the blocks, mosaic them, outline the buildings and write the results.

    Args:
        plan: The scene, its chips and the engine.
        bundle: The model, for its threshold and the report.
        settings: See `RunSettings`.
        stages: The clock, if it is running already.
        quiet: Show no progress.
        client: An existing dask client to use.
    """
    stages = stages or Stages()
    require_no_batch(open_store(settings.folder_of(plan.scene.name)), plan.scene.name)
    with (
        ExitStack() as last,  # after the cluster, so that no task writes to a folder that was released
        nullcontext(client) if client is not None else open_client(settings, bundle) as own,
    ):
        session = open_session(plan, bundle, settings, stages, computing_threads(own, settings, bundle))
        if session is None:
            out = open_store(settings.folder_of(plan.scene.name))
            return RunResult(out, read_json(out, "run.json") or {}, is_new=False)
        last.callback(session.close)
        session.dashboard = dashboard_of(own, settings)
        stages.done("open")
        report = None
        while report is None:
            with _warming_up(session):
                outcomes = run_tasks(own, session.next_task, check=session.lease.check)
                for outcome in track(outcomes, total=session.left, what="block", quiet=quiet):
                    session.note(outcome)
            stages.done("blocks")
            session.write_progress()
            if settings.is_in_process:
                close_idle_readers()
            try:
                report = finish_run(session.job, session.summary(), _spread(session, own))
            except DamagedPartError as err:
                session.drop_damaged(err)
    close_readers()
    warn_if_blank(report)
    return RunResult(open_store(settings.folder_of(plan.scene.name)), report)


def _spread(session: Session, client: "Client") -> Spread:
    """Return where buildings are outlined: on the workers, where they see the rasters that the client has made."""
    if session.job.settings.is_in_process or not isinstance(session.ledger.out, LocalStore):
        return IN_THREADS

    def spread(function: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
        name = f"outline-{type(function).__name__}"
        return map_tasks(client, call_on_worker, function, items, name=name, check=session.lease.check)

    return spread


@contextmanager
def _warming_up(session: Session) -> Iterator[None]:
    """Import torchgeo while another thread loads the engine, if the workers are threads of this process.

    The thread is joined, as a process that ends while a network is being compiled aborts. If loading fails, the blocks
    report it.
    """
    job = session.job

    def load_engine() -> None:
        if isinstance(job.plan.engine, EngineRecipe):
            with suppress(GeosegError):
                job.worker_plan().open_engine()

    if not (job.settings.is_in_process and session.left):
        yield
        return
    thread = Thread(target=load_engine, daemon=True)
    thread.start()
    try:
        prepare_process()
        session.stages.done("imports")
        yield
    finally:
        thread.join()
