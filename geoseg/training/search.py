"""Search for better settings with Optuna: any keys of a recipe, resumable, and the best trained on all the data."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import GeosegError, MissingPackageError, RecipeError, TrainingError, UsageError
from geoseg.evaluate.table import write_table
from geoseg.io.aside import write_text
from geoseg.training.folder import claim_inputs, place_of
from geoseg.training.library import find_recipe, load_recipe, recipe_text
from geoseg.training.recipe import Recipe, Source
from geoseg.training.space import Dimension

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

__all__ = ["Search", "SearchSettings", "TrialResult", "search_recipe"]

log = logging.getLogger(__name__)

STUDY = "study.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """What a user may choose.

    Attributes:
        space: Range or list of values by dotted recipe key.
        trials: How many trainings in all, those of earlier calls and failed ones included.
        minutes: Time for each; as the recipe says by default.
        data: Folder that the recipe's paths start from.
        out: Folder of the study; `<recipe's name>_search` by default.
        overrides: Dotted recipe keys and values that all trials share.
        over: More recipes that are laid over the first.
        retrain: At the end train the best settings on training and validation data together.
    """

    space: Mapping[str, Dimension]
    trials: int = 20
    minutes: float | None = None
    data: Path | None = None
    out: Path | None = None
    overrides: Mapping[str, Any] | None = None
    over: Sequence[str | Path] = ()
    retrain: bool = False


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One training.

    Attributes:
        number: Its number, from 0.
        value: The figure that is searched for, or None where it failed.
        values: What was chosen, by recipe key.
        error: Why it failed.
        folder: Name of its folder.
    """

    number: int
    value: float | None
    values: dict[str, Any]
    error: str
    folder: str


@dataclass(frozen=True, slots=True)
class Search:
    """What a search found.

    Attributes:
        folder: Where it lies.
        trials: All trainings.
        recipe: The best settings, as a recipe that `geoseg train` reads.
        bundle: The model trained on all the data, or None.
    """

    folder: Path
    trials: list[TrialResult]
    recipe: Path
    bundle: Path | None = None

    @property
    def best(self) -> TrialResult:
        """The trial of the highest figure; of equal ones the first."""
        return _best(self.trials)

    def table(self) -> str:
        """Return a Markdown table of the trials, best first, failed ones last."""
        keys = list(self.best.values)
        done = sorted(
            (t for t in self.trials if t.value is not None), key=lambda t: t.value if t.value is not None else 0.0
        )
        failed = [t for t in self.trials if t.value is None]
        rows = [[str(t.number), _shown(t.value), *(_shown(t.values.get(key)) for key in keys)] for t in done[::-1]]
        rows += [[str(t.number), f"failed: {t.error}", *(_shown(t.values.get(key)) for key in keys)] for t in failed]
        return write_table(("trial", "validation IoU", *keys), rows)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _best(trials: Sequence[TrialResult]) -> TrialResult:
    return max(trials, key=lambda trial: -1.0 if trial.value is None else trial.value)


def search_recipe(recipe: str | Path, settings: SearchSettings) -> Search:
    """Train a recipe again and again with other settings, and write the best as a recipe.

    The same call continues a search that was interrupted, a half-trained trial included; more `trials` add to it.

    Args:
        recipe: as for `train_recipe`.
        settings: See `SearchSettings`.

    Raises:
        MissingPackageError: Optuna is not installed.
        RecipeError: the recipe or a key of the space cannot be used.
        TrainingError: every trial failed.
    """
    _check_installed()
    if settings.trials < 1:
        raise UsageError(f"--trials {settings.trials} is no search. Give 1 or more; 20 are usual.")
    job = _Job.plan(recipe, settings)
    study = _open_study(job)
    for number in range(_finished(study), settings.trials):
        _run_trial(job, study, number)
    found = _read_trials(study)
    if all(trial.value is None for trial in found):
        raise TrainingError(f"all {len(found)} trials failed; the first: {found[0].error}")
    best = job.folder / "best.toml"
    write_text(best, recipe_text(_best_plan(job, _best(found))))
    result = Search(job.folder, found, best)
    _write(result)
    return replace(result, bundle=_retrain(job, result.best)) if settings.retrain else result


def _check_installed() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as err:
        raise MissingPackageError(
            'geoseg search needs Optuna, which is not installed. Install it with pip install "geoseg[search]".'
        ) from err


@dataclass(frozen=True, slots=True)
class _Job:
    """What all trials share."""

    recipe: Path
    settings: SearchSettings
    data: Path
    folder: Path
    seed: int

    @classmethod
    def plan(cls, recipe: str | Path, settings: SearchSettings) -> "_Job":
        """Check the recipe and every end of the space, before anything is trained."""
        path = find_recipe(recipe)
        shared = cls(path, settings, Path(settings.data or "data"), Path(), 0)
        plan = shared.read({})
        for key, dimension in settings.space.items():
            shared.check(key, dimension)
        folder = Path(settings.out or f"{plan.name}_search")
        return replace(shared, folder=folder, seed=plan.fit.seed)

    def read(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with the values of a trial."""
        given = self.settings
        minutes = {"fit.minutes": float(given.minutes)} if given.minutes is not None else {}
        return load_recipe(self.recipe, {**(given.overrides or {}), **minutes, **values}, over=given.over)

    def check(self, key: str, dimension: Dimension) -> None:
        """Refuse a key of which no value can be used; single values that do not go together fail as trials."""
        faults = []
        for value in dimension.ends:
            try:
                self.read({key: value})
            except RecipeError as err:
                faults.append(err)
        if len(faults) == len(dimension.ends):
            raise faults[0]


def _open_study(job: _Job) -> "Study":
    """Open the study of a folder, or begin it; trials that were cut short are put first in line."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _claim(job)
    storage = f"sqlite:///{(job.folder / STUDY).absolute()}"
    study = optuna.create_study(storage=storage, study_name="geoseg", direction="maximize", load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=job.seed + len(study.trials))
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _claim(job: _Job) -> None:
    """Refuse a folder whose trials had other settings: their figures would not compare."""
    inputs = {"recipe": recipe_text(job.read({})), "space": repr(dict(job.settings.space))}
    inputs["data"] = place_of(job.data)
    refusal = RecipeError(
        f"{job.folder} holds a search of another recipe, space or data folder, whose figures do not compare. "
        "Continue it with the same, or choose another folder with --out."
    )
    claim_inputs(job.folder, inputs, refusal)


def _finished(study: "Study") -> int:
    return len(_read_trials(study))


def _run_trial(job: _Job, study: "Study", number: int) -> None:
    """Train with values that Optuna chooses, and tell it how good they are."""
    import optuna

    trial = study.ask()
    values = _suggest(job, trial)
    name = f"trial-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]}"
    trial.set_user_attr("folder", name)
    said = ", ".join(f"{key} = {_shown(value)}" for key, value in values.items())
    log.info("trial %d of %d: %s", number + 1, job.settings.trials, said)
    try:
        value = _train(job, values, job.folder / name)
    except GeosegError as err:
        log.warning("trial %d failed: %s", number + 1, err)
        trial.set_user_attr("error", str(err))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    study.tell(trial, value)


def _suggest(job: _Job, trial: "OptunaTrial") -> dict[str, Any]:
    return {key: dimension.suggest(trial, key) for key, dimension in job.settings.space.items()}


def _train(job: _Job, values: Mapping[str, Any], folder: Path) -> float:
    """Train one trial, or read what an equal one found, and return its figure."""
    plan = job.read(values)
    if not (folder / "metrics.json").is_file():
        from geoseg.training.fit import train_plan

        train_plan(plan, data=job.data, folder=folder, beside=job.recipe.parent, cache=job.folder / "prepared")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if "headline" not in metrics:
        raise TrainingError("the recipe validates on nothing, so there is no figure to search for; split its sources")
    return float(metrics["headline"])


def _read_trials(study: "Study") -> list[TrialResult]:
    """Return the trials that ended; those that were cut short are not among them."""
    import optuna

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    found = study.get_trials(states=ended)
    return [_result(trial) for trial in found if trial.value is not None or "error" in trial.user_attrs]


def _result(trial: "FrozenTrial") -> TrialResult:
    return TrialResult(
        trial.number,
        trial.value,
        dict(trial.params),
        trial.user_attrs.get("error", ""),
        trial.user_attrs.get("folder", ""),
    )


def _best_plan(job: _Job, best: TrialResult) -> Recipe:
    return job.read(best.values)


def _write(result: Search) -> None:
    best = result.best
    trials = [
        {"number": t.number, "value": t.value, "values": t.values, "error": t.error, "folder": t.folder}
        for t in result.trials
    ]
    values = {"best": {"number": best.number, "value": best.value, "values": best.values}, "trials": trials}
    write_text(result.folder / "search.json", json.dumps(values, indent=1))


def _retrain(job: _Job, best: TrialResult) -> Path:
    """Train the best settings on training and validation data together, for as many steps as were best."""
    from geoseg.training.fit import train_plan

    metrics = json.loads((job.folder / best.folder / "metrics.json").read_text(encoding="utf-8"))
    plan = _on_all_data(_best_plan(job, best), job.data, job.folder)
    fit = replace(plan.fit, steps=int(metrics["step"]), epochs=0, minutes=1e6, early_stopping=0)
    if fit.schedule == "plateau":
        log.info("fit.schedule = plateau waits for a validation; cosine takes its place")
        fit = replace(fit, schedule="cosine")
    plan = replace(plan, fit=fit, threshold=float(metrics.get("best_threshold", plan.threshold)))
    log.info("training on all the data for %d steps, those that were best; no validation figure is possible", fit.steps)
    folder = job.folder / "retrained"
    write_text(job.folder / "retrained.toml", recipe_text(plan))
    return train_plan(plan, data=job.data, folder=folder, beside=job.recipe.parent, cache=job.folder / "prepared")


def _on_all_data(plan: Recipe, data: Path, folder: Path) -> Recipe:
    sources = (_whole(source, plan, data, folder) for source in plan.sources if source.weight > 0)
    return replace(plan, sources=tuple(sources))


def _whole(source: Source, plan: Recipe, data: Path, folder: Path) -> Source:
    """Return a source that trains on what it trained and validated on; what is held out for testing stays so."""
    free: dict[str, Any] = {"validate": (), "validate_scenes": (), "validate_east": 0.0, "validate_px": 0, "fold": ()}
    free |= {"split": (), "split_file": ""}
    if source.areas:
        return replace(source, **free, train=(*source.train, *source.validate))
    held = (*source.test_scenes, *map(escape, _test_names(source, plan, data, folder)))
    return replace(source, **free, test_scenes=held)


def _test_names(source: Source, plan: Recipe, data: Path, folder: Path) -> tuple[str, ...]:
    """Return the names that a split keeps for testing."""
    from geoseg.datasets.splits import draw_split, read_split
    from geoseg.training.sources import find_names

    if not (source.split or source.split_file):
        return ()
    names = find_names(source, data)
    places = [place / source.split_file for place in (data, folder) if source.split_file]
    for place in places:
        if place.is_file():
            return read_split(place, names)["test"]
    return draw_split(names, source.split, plan.fit.seed)["test"]
