"""Search for better settings with Optuna: any keys of a recipe, resumable, and the best trained on all the data."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import GeosegError, MissingPackageError, RecipeError, TrainingError, UsageError
from geoseg.io.aside import write_json, write_text
from geoseg.io.tables import write_table
from geoseg.training.experiment import Experiment
from geoseg.training.folder import claim_inputs, place_of
from geoseg.training.library import find_recipe, load_recipe, recipe_text
from geoseg.training.recipe import Recipe
from geoseg.training.space import Dimension

if TYPE_CHECKING:
    from optuna import Study

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
        return max(self.trials, key=lambda trial: -1.0 if trial.value is None else trial.value)

    def table(self) -> str:
        """Return a Markdown table of the trials, best first, failed ones last."""
        keys = list(self.best.values)
        done = sorted((t for t in self.trials if t.value is not None), key=lambda t: t.value or 0.0)[::-1]
        failed = [t for t in self.trials if t.value is None]
        rows = []
        for trial in (*done, *failed):
            figure = f"failed: {trial.error}" if trial.value is None else _shown(trial.value)
            rows.append([str(trial.number), figure, *(_shown(trial.values.get(key)) for key in keys)])
        return write_table(("trial", "validation IoU", *keys), rows)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


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
    try:
        import optuna  # noqa: F401
    except ImportError as err:
        raise MissingPackageError(
            'geoseg search needs Optuna, which is not installed. Install it with pip install "geoseg[search]".'
        ) from err
    if settings.trials < 1:
        raise UsageError(f"`trials={settings.trials}` is not a search. Give 1 or more; 20 are usual.")
    path = find_recipe(recipe)
    plan = _read(path, settings, {})
    for key, dimension in settings.space.items():
        _check_ends(path, settings, key, dimension)
    folder = Path(settings.out or f"{plan.name}_search")
    experiment = Experiment(folder, Path(settings.data or "data"), path.parent)
    study = _open_study(experiment, plan, settings)
    for number in range(len(_read_trials(study)), settings.trials):
        _run_trial(experiment, study, number, path, settings)
    result = Search(folder, _read_trials(study), folder / "best.toml")
    best = result.best
    if best.value is None:
        raise TrainingError(f"all {len(result.trials)} trials failed; the first: {result.trials[0].error}")
    plan = _read(path, settings, best.values)
    write_text(result.recipe, recipe_text(plan))
    chosen = {"number": best.number, "value": best.value, "values": best.values}
    write_json(folder / "search.json", {"best": chosen, "trials": [asdict(trial) for trial in result.trials]})
    return replace(result, bundle=_retrain(experiment, plan, best)) if settings.retrain else result


def _read(path: Path, settings: SearchSettings, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the values of a trial."""
    minutes = {"fit.minutes": float(settings.minutes)} if settings.minutes is not None else {}
    return load_recipe(path, {**(settings.overrides or {}), **minutes, **values}, over=settings.over)


def _check_ends(path: Path, settings: SearchSettings, key: str, dimension: Dimension) -> None:
    """Refuse a key of which no value can be used; single values that do not go together fail as trials."""
    faults = []
    for value in dimension.ends:
        try:
            _read(path, settings, {key: value})
        except RecipeError as err:
            faults.append(err)
    if len(faults) == len(dimension.ends):
        raise faults[0]


def _open_study(experiment: Experiment, plan: Recipe, settings: SearchSettings) -> "Study":
    """Open the study of a folder, or begin it; trials that were cut short are put first in line."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    inputs = {"recipe": recipe_text(plan), "space": repr(dict(settings.space)), "data": place_of(experiment.data)}
    refusal = RecipeError(
        f"{experiment.folder} holds a search of another recipe, space or data folder, whose scores are not comparable. "
        "Continue it with the same, or choose another folder with `out`."
    )
    claim_inputs(experiment.folder, inputs, refusal)
    storage = f"sqlite:///{(experiment.folder / STUDY).absolute()}"
    study = optuna.create_study(storage=storage, study_name="geoseg", direction="maximize", load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=plan.fit.seed + len(study.trials))
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _run_trial(experiment: Experiment, study: "Study", number: int, path: Path, settings: SearchSettings) -> None:
    """Train with values that Optuna chooses, and tell it how good they are; equal values are trained once."""
    import optuna

    trial = study.ask()
    values = {key: dimension.suggest(trial, key) for key, dimension in settings.space.items()}
    name = f"trial-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]}"
    trial.set_user_attr("folder", name)
    said = ", ".join(f"{key} = {_shown(value)}" for key, value in values.items())
    log.info("trial %d of %d: %s", number + 1, settings.trials, said)
    try:
        metrics = experiment.train(name, _read(path, settings, values))
        if "headline" not in metrics:
            raise TrainingError("the recipe validates on nothing, so no figure can be searched for; split its sources")
    except GeosegError as err:
        log.warning("trial %d failed: %s", number + 1, err)
        trial.set_user_attr("error", str(err))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, float(metrics["headline"]))


def _read_trials(study: "Study") -> list[TrialResult]:
    """Return the trials that ended; those that were cut short are not among them."""
    import optuna

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    return [
        TrialResult(t.number, t.value, dict(t.params), t.user_attrs.get("error", ""), t.user_attrs.get("folder", ""))
        for t in study.get_trials(states=ended)
        if t.value is not None or "error" in t.user_attrs
    ]


def _retrain(experiment: Experiment, plan: Recipe, best: TrialResult) -> Path:
    """Train the best settings on training and validation data together, for as many steps as were best.

    What is held out for testing stays so.
    """
    from geoseg.training.source_files import find_names, split_names

    metrics = json.loads((experiment.folder / best.folder / "metrics.json").read_text(encoding="utf-8"))
    fit = replace(plan.fit, steps=int(metrics["step"]), epochs=0, minutes=1e6, early_stopping=0)
    if fit.schedule == "plateau":
        log.info("fit.schedule = plateau waits for a validation; cosine takes its place")
        fit = replace(fit, schedule="cosine")
    free: dict[str, Any] = {"validate": (), "validate_scenes": (), "validate_east": 0.0, "validate_px": 0, "fold": ()}
    free |= {"split": (), "split_file": ""}
    sources = []
    for source in plan.sources:
        if source.weight > 0 and source.areas:
            sources.append(replace(source, **free, train=(*source.train, *source.validate)))
        elif source.weight > 0:
            names = find_names(source, experiment.data)
            split = split_names(source, names, data=experiment.data, results=experiment.folder, seed=fit.seed)
            held = (*source.test_scenes, *map(escape, split["test"]))
            sources.append(replace(source, **free, test_scenes=held))
    threshold = float(metrics.get("best_threshold", plan.threshold))
    plan = replace(plan, fit=fit, threshold=threshold, sources=tuple(sources))
    log.info("training on all the data for %d steps, those that were best; no validation figure is possible", fit.steps)
    write_text(experiment.folder / "retrained.toml", recipe_text(plan))
    experiment.train("retrained", plan, again=True)
    return experiment.folder / "retrained" / f"{plan.name}.safetensors"
