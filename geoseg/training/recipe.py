"""A recipe: all that decides what a training run does, read from TOML and checked before anything starts."""

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import RecipeError

__all__ = ["Augmentation", "Fit", "Network", "Recipe", "Source", "load_recipe"]


def _within(low: float, high: float, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"within": (low, high)})


def _one_of(*allowed: str, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"one_of": allowed})


@dataclass(frozen=True, kw_only=True)
class Network:
    """`[network]`: what is trained. `options` go to `build_network`."""

    name: str
    encoder: str = "resnet34"
    encoder_weights: str = ""
    bands: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("building",)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: float = 255.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of `[[sources]]`: imagery, its truth, and which of it serves what.

    `images` is a path or pattern below the data folder; `labels` a file, or a folder of files named as the images.
    `areas` holds polygons whose `split` is named in `train` and `validate`; without it, `validate_scenes` are
    patterns of file names. `validate_east` keeps that share of the training area's columns for validation.
    `complete = false` says that what is marked is true but buildings are missing. `paint_seeds` has scenes painted
    by `geoseg.testing` instead: first seed and one past the last.
    """

    name: str
    weight: float = _within(0, 1000, 1.0)
    images: str = ""
    labels: str = ""
    exclude: tuple[str, ...] = ()
    areas: str = ""
    train: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    validate_scenes: tuple[str, ...] = ()
    validate_east: float = _within(0, 0.9, 0.0)
    validate_px: int = _within(0, 1_000_000, 0)
    complete: bool = True
    paint_seeds: tuple[int, ...] = ()
    paint_size_px: int = _within(64, 16384, 1024)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One of `[[augment]]`: a step of `geoseg.training.augment`, how often it happens, and its range."""

    step: str
    probability: float = _within(0, 1, 1.0)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`[fit]`: sizes, optimiser and schedule.

    The schedule follows progress, the larger of steps done of `steps` and time used of `minutes`, so that the
    learning rate reaches its end on a slow day too.
    """

    batch: int = _within(1, 4096, 8)
    crop_px: int = _within(32, 8192, 256)
    window_px: int = _within(32, 8192, 384)
    steps: int = _within(1, 100_000_000)
    minutes: float = _within(0.01, 1_000_000, 1e6)
    validate_every: int = _within(1, 1_000_000, 200)
    optimiser: str = _one_of("adamw", "adam", default="adamw")
    learning_rate: float = _within(1e-8, 10, 1e-3)
    weight_decay: float = _within(0, 10, 1e-2)
    warm_up: float = _within(0, 1, 0.05)
    last_learning_rate: float = _within(0, 1, 0.01)
    clip_norm: float = _within(0, 1e6, 1.0)
    average_decay: float = _within(0, 0.999999, 0.998)
    precision: str = _one_of("32-true", "bf16-mixed", "16-mixed", default="bf16-mixed")
    threads: int = _within(0, 1024, 0)
    seed: int = _within(0, 2**31, 0)
    unsure_from: float = _within(0, 1, 0.3)
    unsure_above: float = _within(0, 1, 0.25)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of a recipe. `loss` maps the name of a loss to its weight, or to a table of `weight` and options."""

    name: str
    version: str = "1"
    description: str = ""
    licence: str = ""
    gsd_m: float = _within(0.001, 1000)
    threshold: float = _within(0, 1, 0.5)
    min_area_m2: float = _within(0, 1e9, 0.0)
    chip_px: int = _within(32, 8192, 512)
    halo_px: int = _within(0, 4096, 64)
    network: Network
    sources: tuple[Source, ...]
    loss: dict[str, Any]
    augment: tuple[Augmentation, ...] = ()
    fit: Fit


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a TOML recipe, change what `overrides` say, and check it.

    Args:
        path: the recipe.
        overrides: dotted keys and values; an element of a list goes by its `name` or `step`, as in
            `sources.accra.weight`. A text is read as TOML where it can be.

    Raises:
        RecipeError: the file cannot be read, a key does not exist, or a value is not allowed.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        raise RecipeError(f"cannot read the recipe {path}: {err.strerror}") from err
    except tomllib.TOMLDecodeError as err:
        raise RecipeError(f"{path} is not TOML: {err}") from err
    for key, value in (overrides or {}).items():
        _override(table, key, value)
    recipe: Recipe = _build(Recipe, table, "")
    _check_parts(recipe)
    return recipe


def _override(table: Any, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = _child(table, parent, key)
    if not isinstance(table, dict):
        raise RecipeError(f"cannot set {key!r}: there is no such table in the recipe")
    table[last] = _parse(value) if isinstance(value, str) else value


def _child(table: Any, name: str, key: str) -> Any:
    if isinstance(table, dict):
        return table.setdefault(name, {})
    named = [item for item in table if name in (item.get("name"), item.get("step"))] if isinstance(table, list) else []
    if not named:
        raise RecipeError(f"cannot set {key!r}: the recipe has no {name!r} there")
    return named[0]


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _build(cls: type[Any], table: Any, where: str) -> Any:
    """Make `cls` of a table, checking keys, types and ranges."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where or 'the recipe'} is {table!r}; expected a table")
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise RecipeError(
            f"unknown key {where}{unknown[0]!s} = {table[unknown[0]]!r}; expected among {', '.join(known)}"
        )
    required = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        raise RecipeError(f"the key {where}{missing[0]} is missing from the recipe")
    hints = typing.get_type_hints(cls)
    return cls(**{k: _value(v, hints[k], known[k], f"{where}{k}") for k, v in table.items()})


def _value(value: Any, hint: Any, spec: Field[Any], where: str) -> Any:
    made = _typed(value, hint, where)
    if "one_of" in spec.metadata and made not in spec.metadata["one_of"]:
        raise RecipeError(f"{where} = {value!r}; expected one of {', '.join(spec.metadata['one_of'])}")
    low, high = spec.metadata.get("within", (None, None))
    if low is not None and not low <= made <= high:
        raise RecipeError(f"{where} = {value!r}; expected a number from {low:g} to {high:g}")
    return made


def _typed(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, f"{where}.")
    if origin is tuple:
        return tuple(_typed(v, args[0], f"{where}[{i}]") for i, v in enumerate(_as(list, value, where)))
    if origin is dict:
        return {k: _typed(v, args[1], f"{where}.{k}") for k, v in _as(dict, value, where).items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if hint is Any else _as(hint, value, where)


def _as(kind: type[Any] | types.UnionType, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"{where} = {value!r}; expected {getattr(kind, '__name__', kind)}")
    return value


def _check_parts(recipe: Recipe) -> None:
    """Check what spans several keys, and names that live in registries."""
    from geoseg.networks import network_names
    from geoseg.training.augment import check_augmentations
    from geoseg.training.losses import check_losses

    network = recipe.network
    if network.name not in network_names():
        raise RecipeError(f"network.name = {network.name!r}; expected one of {', '.join(network_names())}")
    if not len(network.mean) == len(network.std) == len(network.bands):
        raise RecipeError(
            f"network.mean has {len(network.mean)} and network.std {len(network.std)} values; "
            f"expected {len(network.bands)}, one for each of network.bands"
        )
    if len(network.classes) != 1:
        raise RecipeError(
            f"network.classes = {list(network.classes)}; expected exactly one class, trained against background"
        )
    if recipe.fit.crop_px % 32 or recipe.fit.window_px < recipe.fit.crop_px:
        raise RecipeError(
            f"fit.crop_px = {recipe.fit.crop_px} and fit.window_px = {recipe.fit.window_px}; expected a crop of a "
            "multiple of 32 and a window no smaller"
        )
    _check_sources(recipe.sources)
    check_losses(recipe.loss, network.classes)
    check_augmentations(recipe.augment)


def _check_sources(sources: tuple[Source, ...]) -> None:
    if not sources:
        raise RecipeError("sources is empty; expected at least one [[sources]] table")
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise RecipeError(f"sources have the names {', '.join(names)}; expected every name once")
    for source in sources:
        if bool(source.images) == bool(source.paint_seeds):
            raise RecipeError(f"sources.{source.name} needs either images or paint_seeds, and not both")
        if source.paint_seeds and len(source.paint_seeds) != 2:
            raise RecipeError(
                f"sources.{source.name}.paint_seeds = {list(source.paint_seeds)}; expected [first, one past the last]"
            )
        if source.images and not source.labels:
            raise RecipeError(f"sources.{source.name}.labels is missing; expected a file or a folder")
