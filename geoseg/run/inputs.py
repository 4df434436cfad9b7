"""What `geoseg run` was given: one scene, many of them, or a mosaic."""

import logging
from collections.abc import Sequence
from pathlib import Path

from geoseg.bundle import load_bundle
from geoseg.errors import OutsideAOIError, UsageError
from geoseg.inference import plan_mosaic, read_aoi_bounds
from geoseg.run.batch import BatchResult, run_sources, settings_of
from geoseg.run.memory import limit_memory
from geoseg.run.report import Stages
from geoseg.run.run import RunResult, plan_run, run_plan
from geoseg.run.settings import RunSettings
from geoseg.sources import SceneSource, filter_sources, list_sources

log = logging.getLogger(__name__)


def run_inputs(inputs: Sequence[str | Path], settings: RunSettings, *, quiet: bool = False) -> RunResult | BatchResult:
    """Segment what the inputs name: one scene into the run folder, several into a folder each, or all as one mosaic.

    Args:
        inputs: What `geoseg.sources.list_sources` takes.
        settings: See `RunSettings`.
        quiet: Show no progress.

    Raises:
        GeosegError: See `run_scene` and `run_each`.
    """
    stages = Stages()
    sources = sources_within(list_sources(inputs, asset=settings.asset), settings)
    if settings.mosaic is not None:
        return run_mosaic(sources, settings, stages=stages, quiet=quiet)
    if len(sources) > 1:
        log.info("%d scenes, each with a result of its own; --mosaic makes one of them", len(sources))
        return run_sources(sources, settings, quiet=quiet)
    return _run_source(sources[0], settings, stages, quiet=quiet)


def sources_within(sources: Sequence[SceneSource], settings: RunSettings) -> Sequence[SceneSource]:
    """Leave out the scenes that a catalogue or manifest places outside the AOI; they are not opened.

    The pixels of a mosaic are those of its first scene (CRS, size of a pixel) or of its finest: no AOI changes them, so
    the first one stays, and all of them where the finest decides.

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
            f"None of the {len(sources)} scenes meets the AOI {settings.aoi}, by the footprints that the catalogue "
            "or manifest gives. Check both, or leave --aoi out."
        )
    if len(left) < len(sources):
        log.info("%d of %d scenes lie outside the AOI", len(sources) - len(left), len(sources))
    kept = {id(source) for source in left}
    return [source for source in sources if id(source) in kept or (is_mosaic and source is sources[0])]


def run_mosaic(
    sources: Sequence[SceneSource], settings: RunSettings, *, stages: Stages | None = None, quiet: bool = False
) -> RunResult:
    """Segment several scenes as one mosaic; seams between them are joined like seams between blocks.

    Args:
        sources: The scenes; their order is that of the rule `first`.
        settings: See `RunSettings`; `mosaic` names the rule for overlaps.
        stages: The clock, where it is running already.
        quiet: Show no progress.

    Raises:
        UsageError: If no rule is named.
        GeosegError: See `run_scene`.
    """
    if settings.mosaic is None:
        raise UsageError("A mosaic needs a rule for overlaps. Give mosaic='first', 'latest' or 'mean'.")
    limit_memory()
    bundle = load_bundle(settings.model)
    plan = plan_mosaic(sources, bundle, settings, rule=settings.mosaic, target_crs=settings.target_crs)
    return run_plan(plan, bundle, settings, stages=stages, quiet=quiet)


def _run_source(source: SceneSource, settings: RunSettings, stages: Stages, *, quiet: bool) -> RunResult:
    """Run one scene; what its manifest says of it goes before what the user says of all."""
    limit_memory()
    bundle = load_bundle(settings.model)
    own = settings_of(source, settings, settings.out or f"{source.name}_geoseg")
    return run_plan(plan_run(source.paths, bundle, own), bundle, own, stages=stages, quiet=quiet)
