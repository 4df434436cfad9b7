"""Search for better settings with Optuna: any keys of a recipe, resumable, and the best trained on all the data."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import GeosegError, MissingPackageError, RecipeError, TrainingError, UsageError
from geoseg.io.aside import check_folder, write_json, write_text
from geoseg.io.tables import write_table
from geoseg.training.folder import check_scenes, claim_inputs, record_scenes
from geoseg.training.library import find_recipe, load_recipe, read_table, recipe_text, toml_value
from geoseg.training.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Study

__all__ = [
    "Choice",
    "Dimension",
    "Range",
    "Search",
    "SearchSettings",
    "TrialResult",
    "parse_dimension",
    "read_space",
    "search_recipe",
]

log = logging.getLogger(__name__)


_NUMBER = r"[+-]?[\d_]*\.?\d+(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(:log)?\s*")

_PART = re.compile(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,\[{"'])+""")
"""Text between commas; those in brackets and quotes do not count."""

EXAMPLE = "fit.learning_rate=1e-5..1e-2:log, network.options.depth=3..5 or network.encoder=resnet18,resnet50"


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers if both are."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values, each as a text of TOML."""

    values: tuple[str, ...]


Dimension = Range | Choice


def read_space(path: Path | None, varied: Sequence[str] = ()) -> dict[str, Dimension]:
    """Read a search space from a file, and add the keys of `varied`.

    Args:
        path: TOML or YAML: `"fit.learning_rate" = {low = 1e-5, high = 1e-2, log = true}`, or a list of values.
        varied: `key=low..high`, `key=low..high:log` or `key=a,b,c`.

    Raises:
        RecipeError: The file cannot be read, or a key is neither a range nor a list.
        UsageError: There is no key, or an entry of `varied` is neither a range nor a list.
    """
    space: dict[str, Dimension] = {}
    for key, value in _flat(read_table(path) if path else {}).items():
        if isinstance(value, list) and value:
            space[key] = Choice(tuple(v if isinstance(v, str) else toml_value(v) for v in value))
        elif isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {"low", "high", "log"}:
            space[key] = _range(key, value["low"], value["high"], log=bool(value.get("log")))
        else:
            raise RecipeError(f"space: {key} = {value!r}; expected {{low = 1e-5, high = 1e-2, log = true}} or a list")
    space |= dict(map(parse_dimension, varied))
    if not space:
        raise UsageError(f"Nothing is varied. Give `vary`, such as {EXAMPLE}, or `space=FILE`.")
    return space


def _flat(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return values by dotted key; a table of `low` and `high` is a value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}.{key}".lstrip(".")
        found |= _flat(value, name) if isinstance(value, Mapping) and "low" not in value else {name: value}
    return found


def parse_dimension(text: str) -> tuple[str, Dimension]:
    """Read `key=low..high`, `key=low..high:log` or `key=a,b,c`; commas inside brackets and quotes do not separate.

    Raises:
        UsageError: It is neither.
        RecipeError: The range is empty.
    """
    key, sign, values = (part.strip() for part in text.partition("="))
    if not key or not sign or not values:
        raise UsageError(f"`vary={text}` is not a key and values. Give for example {EXAMPLE}.")
    match = _RANGE.fullmatch(values)
    if match:
        low, high = (float(end) if re.search("[.eE]", end) else int(end) for end in match.group(1, 2))
        return key, _range(key, low, high, log=bool(match[3]))
    parts = tuple(part.strip() for part in _PART.findall(values) if part.strip())
    if len(parts) < 2:
        raise UsageError(
            f"`vary={text}` has one value. Set the key in the recipe, or give a range or several: {EXAMPLE}."
        )
    return key, Choice(parts)


def _range(key: str, low: Any, high: Any, *, log: bool) -> Range:
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or low >= high or (log and low <= 0):
        above = ", above 0 for a logarithmic range" if log else ""
        raise RecipeError(f"{key} goes from {low!r} to {high!r}; expected two numbers, the smaller first{above}")
    return Range(low, high, log)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Options of a search.

    Attributes:
        space: Range or list of values by dotted recipe key.
        trials: Total number of trials, those of earlier calls and failed ones included.
        minutes: Time for each; the recipe's by default.
        data: Folder that the recipe's paths are relative to.
        out: Folder of the study; `<recipe's name>_search` by default.
        overrides: Values by dotted key that all trials share.
        over: More recipes, whose keys override the first's.
        retrain: Finally train the best settings on training and validation data together.
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
    """One training: its number from 1, its score (None if it failed), the values tried, the error, and its folder."""

    number: int
    value: float | None
    values: dict[str, Any]
    error: str
    folder: str


@dataclass(frozen=True, slots=True)
class Search:
    """The results of a search.

    Attributes:
        folder: Folder of the study.
        trials: All trials.
        recipe: The best settings, as a recipe that `geoseg train` reads.
        bundle: The model trained on all the data, or None.
    """

    folder: Path
    trials: list[TrialResult]
    recipe: Path
    bundle: Path | None = None

    @property
    def best(self) -> TrialResult:
        """The trial with the highest score; of equal ones the first."""
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
    """Train a recipe repeatedly with other settings, and write the best as a recipe.

    The same call continues a search that was interrupted, starting with an unfinished trial; more `trials` add to it.

    Args:
        recipe: As for `train_recipe`.
        settings: See `SearchSettings`.

    Raises:
        MissingPackageError: Optuna is not installed.
        RecipeError: The recipe or a key of the space cannot be used.
        OutputError: The folder cannot be written.
        TrainingError: All trials failed.
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
        ends = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        faults = []
        for value in ends:
            try:
                _read(path, settings, {key: value})
            except RecipeError as err:
                faults.append(err)
        if len(faults) == len(ends):  # single values that cannot be combined fail as trials
            raise faults[0]
    folder, data = Path(settings.out or f"{plan.name}_search"), Path(settings.data or "data")
    check_folder(folder)
    study = _open_study(folder, data, plan, settings)
    for number in range(len(_read_trials(study)) + 1, settings.trials + 1):
        _run_trial(folder, data, study, number, path, settings)
    result = Search(folder, _read_trials(study), folder / "best.toml")
    best = result.best
    if best.value is None:
        raise TrainingError(f"all {len(result.trials)} trials failed; the first: {result.trials[0].error}")
    plan = _read(path, settings, best.values)
    write_text(result.recipe, recipe_text(plan))
    chosen = {"number": best.number, "value": best.value, "values": best.values}
    write_json(folder / "search.json", {"best": chosen, "trials": [asdict(trial) for trial in result.trials]})
    return replace(result, bundle=_retrain(folder, data, path.parent, plan, best)) if settings.retrain else result


def _read(path: Path, settings: SearchSettings, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the values of a trial."""
    minutes = {"fit.minutes": float(settings.minutes)} if settings.minutes is not None else {}
    return load_recipe(path, {**(settings.overrides or {}), **minutes, **values}, over=settings.over)


def _open_study(folder: Path, data: Path, plan: Recipe, settings: SearchSettings) -> "Study":
    """Open or create the study of a folder; trials that were cut short come first."""
    import optuna

    from geoseg.training.source_files import fingerprint_scenes

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    inputs = {"recipe": recipe_text(plan), "space": repr(dict(settings.space))}
    refusal = RecipeError(
        f"{folder} has a search of another recipe or space, whose scores are not comparable. "
        "Continue it with the same, or choose another folder with `out`."
    )
    scenes = fingerprint_scenes(plan, data=data, results=folder)
    check_scenes(folder, scenes)
    claim_inputs(folder, inputs, lambda _: refusal)
    record_scenes(folder, scenes)
    storage = f"sqlite:///{(folder / 'study.db').absolute()}"
    study = optuna.create_study(storage=storage, study_name="geoseg", direction="maximize", load_if_exists=True)
    study.sampler = optuna.samplers.TPESampler(seed=plan.fit.seed + len(study.trials))
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _run_trial(folder: Path, data: Path, study: "Study", number: int, path: Path, settings: SearchSettings) -> None:
    """Train with values that Optuna chooses, and report the score to it; equal values are trained once."""
    import optuna

    from geoseg.training.fit import train_variant

    trial = study.ask()
    values: dict[str, Any] = {}
    for key, found in settings.space.items():
        if isinstance(found, Choice):
            values[key] = trial.suggest_categorical(key, found.values)
        elif isinstance(found.low, int) and isinstance(found.high, int):
            values[key] = trial.suggest_int(key, found.low, found.high, log=found.log)
        else:
            values[key] = trial.suggest_float(key, found.low, found.high, log=found.log)
    name = f"trial-{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]}"
    trial.set_user_attr("folder", name)
    said = ", ".join(f"{key} = {_shown(value)}" for key, value in values.items())
    log.info("trial %d of %d: %s", number, settings.trials, said)
    try:
        metrics = train_variant(_read(path, settings, values), name, data=data, out=folder, beside=path.parent)
        if "headline" not in metrics:
            raise TrainingError("the recipe has no validation data, so trials have no score; split its sources")
    except GeosegError as err:
        log.warning("trial %d failed: %s", number, err)
        trial.set_user_attr("error", str(err))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, float(metrics["headline"]))


def _read_trials(study: "Study") -> list[TrialResult]:
    """Return the trials that ended, without those that were cut short."""
    import optuna

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    trials = [t for t in study.get_trials(states=ended) if t.value is not None or "error" in t.user_attrs]
    return [
        TrialResult(number, t.value, dict(t.params), t.user_attrs.get("error", ""), t.user_attrs.get("folder", ""))
        for number, t in enumerate(trials, 1)
    ]


def _retrain(folder: Path, data: Path, beside: Path, plan: Recipe, best: TrialResult) -> Path:
    """Train on training and validation data together, for as many steps as were best; test data stay excluded."""
    from geoseg.training.fit import train_variant
    from geoseg.training.source_files import find_names, split_names

    metrics = json.loads((folder / best.folder / "metrics.json").read_text(encoding="utf-8"))
    fit = replace(plan.fit, steps=int(metrics["step"]), epochs=0, minutes=1e6, early_stopping=0)
    if fit.schedule == "plateau":
        log.info("fit.schedule = plateau needs validation data; cosine is used instead")
        fit = replace(fit, schedule="cosine")
    free: dict[str, Any] = {"validate": (), "validate_scenes": (), "validate_east": 0.0, "validate_px": 0, "fold": ()}
    free["validate_west"] = 0.0
    free |= {"split": (), "split_file": ""}
    sources = []
    for source in plan.sources:
        if source.weight > 0 and source.areas:
            sources.append(replace(source, **free, train=(*source.train, *source.validate)))
        elif source.weight > 0:
            names = find_names(source, data, folder)
            split = split_names(source, names, data=data, results=folder, seed=fit.seed)
            held = (*source.test_scenes, *map(escape, split["test"]))
            sources.append(replace(source, **free, test_scenes=held))
    threshold = float(metrics.get("best_threshold", plan.threshold))
    plan = replace(plan, fit=fit, threshold=threshold, sources=tuple(sources))
    log.info("training on all the data for %d steps, as many as were best; there are no validation scores", fit.steps)
    write_text(folder / "retrained.toml", recipe_text(plan))
    train_variant(plan, "retrained", data=data, out=folder, beside=beside, again=True)
    return folder / "retrained" / f"{plan.name}.safetensors"
