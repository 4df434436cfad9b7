"""A recipe: everything that decides what a training run does, as dataclasses of keys and the values that they may have.

`build` makes them from the tables of a TOML or YAML file (`geoseg.training.library` reads it); `check_recipe` checks
keys that depend on each other. docs/training.md and docs/data.md describe the keys.
"""

import re
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from geoseg.errors import RecipeError

__all__ = ["Augmentation", "Fit", "Network", "Recipe", "Source", "build", "check_recipe", "check_source"]

MOST_CLASSES = 250
"""Class rasters are 8-bit, and the highest values mean that there is no class."""


def within(low: float, high: float, default: Any = MISSING) -> Any:
    """Declare a number from `low` to `high`."""
    return field(default=default, metadata={"within": (low, high)})


def one_of(*allowed: str, default: Any = MISSING) -> Any:
    """Declare a text that is one of `allowed`."""
    return field(default=default, metadata={"one_of": allowed})


@dataclass(frozen=True, kw_only=True)
class Network:
    """`[network]`: what is trained (docs/networks.md). `options` are keyword arguments of `build_network`.

    `encoder_weights` is "" (none), "imagenet", a pretrained weight of torchgeo, or a safetensors file; `start_from` is
    a bundle, by name or path, whose weights the whole network starts from.
    """

    name: str
    encoder: str = ""
    encoder_weights: str = ""
    start_from: str = ""
    bands: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("building",)
    target: str = ""
    colors: dict[str, str] = field(default_factory=dict)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: float = within(1e-9, 1e9, 255.0)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def target_class(self) -> str:
        """The class whose probability becomes the mask: `target`, else "building", else the first but "background"."""
        named = [name for name in self.classes if name != "background"] or list(self.classes)
        return self.target or ("building" if "building" in named else named[0])

    @property
    def builder_options(self) -> dict[str, Any]:
        """The keyword arguments of `build_network`; the encoder is always named where there is one."""
        from geoseg.networks import default_encoder

        encoder = self.encoder or default_encoder(self.name)
        return {**({"encoder": encoder} if encoder else {}), **self.options}

    @property
    def stride_px(self) -> int:
        """The sides of crops and chips are multiples of this."""
        from geoseg.networks import network_stride

        return network_stride(self.name, self.builder_options)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of `[[sources]]`: imagery, its labels, and what they are used for (docs/data.md)."""

    name: str
    weight: float = within(0, 1000, 1.0)
    layout: str = ""
    root: str = ""
    images: str = ""
    labels: str = ""
    exclude: tuple[str, ...] = ()
    layer: str = ""
    label_column: str = ""
    empty_ok: bool = False
    bands: tuple[int, ...] = ()
    gsd_m: float = within(0, 1000, 0.0)
    colors: dict[str, str] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    areas: str = ""
    train: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    validate_scenes: tuple[str, ...] = ()
    test_scenes: tuple[str, ...] = ()
    split: tuple[float, ...] = ()
    split_file: str = ""
    fold: tuple[int, ...] = ()
    validate_east: float = within(0, 0.9, 0.0)
    validate_px: int = within(0, 1_000_000, 0)
    complete: bool = True
    paint_seeds: tuple[int, ...] = ()
    paint_size_px: int = within(64, 16384, 1024)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One of `[[augment]]`: a step of `geoseg.training.augment`, how often it happens, and its range."""

    step: str
    probability: float = within(0, 1, 1.0)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`[fit]`: sizes, optimizer and schedule (docs/training.md); 0 steps or epochs set no limit."""

    batch: int = within(1, 4096, 8)
    crop_px: int = within(32, 8192, 256)
    window_px: int = within(0, 8192, 0)
    steps: int = within(0, 100_000_000, 0)
    epochs: int = within(0, 1_000_000, 0)
    minutes: float = within(0.01, 1_000_000, 1e6)
    validate_every: int = within(0, 1_000_000, 0)
    optimizer: str = one_of("adamw", "adam", default="adamw")
    learning_rate: float = within(1e-8, 10, 1e-3)
    encoder_rate: float = within(0, 100, 1.0)
    weight_decay: float = within(0, 10, 1e-2)
    schedule: str = one_of("cosine", "plateau", "one-cycle", "constant", default="cosine")
    warm_up: float = within(0, 1, 0.05)
    last_learning_rate: float = within(0, 1, 0.01)
    plateau_factor: float = within(0.01, 0.99, 0.5)
    plateau_patience: int = within(0, 10_000, 5)
    early_stopping: int = within(0, 10_000, 0)
    clip_norm: float = within(0, 1e6, 1.0)
    average_decay: float = within(0, 0.999999, 0.998)
    precision: str = one_of("auto", "32-true", "bf16-mixed", "16-mixed", default="auto")
    device: str = one_of("auto", "cpu", "cuda", "mps", default="auto")
    threads: int = within(0, 1024, 0)
    workers: int = within(0, 256, 0)
    seed: int = within(0, 2**31, 0)
    unscored: tuple[str, ...] = ()
    unsure_from: float = within(0, 1, 0.3)
    unsure_above: float = within(0, 1, 0.25)

    @property
    def read_px(self) -> int:
        """Side of the windows that crops are cut from: `window_px`, by default 1.5 times `crop_px`."""
        return self.window_px or self.crop_px * 3 // 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe. `loss` maps the name of a loss to its weight, or to a table of `weight` and options."""

    name: str
    version: str = "1"
    description: str = ""
    license: str = ""
    gsd_m: float = within(0.001, 1000)
    threshold: float = within(0.01, 0.99, 0.5)
    min_area_m2: float = within(0, 1e9, 0.0)
    chip_px: int = within(32, 8192, 512)
    halo_px: int = within(0, 4096, 64)
    network: Network
    sources: tuple[Source, ...]
    loss: dict[str, Any]
    augment: tuple[Augmentation, ...] = ()
    fit: Fit


def build(cls: type[Any], table: Any, where: str = "") -> Any:
    """Make one of the dataclasses above from a table of TOML or YAML; check keys, types and ranges.

    Args:
        cls: The dataclass.
        table: Keys and values.
        where: Dotted name of the table with a dot at its end, for messages.

    Raises:
        RecipeError: A key or a value is not allowed; names both and what is allowed.
    """
    if not isinstance(table, dict):
        raise RecipeError(f"{where.removesuffix('.') or 'the recipe'} is {table!r}; expected a table")
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise RecipeError(
            f"unknown key {where}{unknown[0]!s} = {table[unknown[0]]!r}; expected among {', '.join(known)}"
        )
    required = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        hint = (
            "" if where else "; a file of data or settings alone is given as `over`, in addition to a complete recipe"
        )
        raise RecipeError(f"the key {where}{missing[0]} is missing from the recipe{hint}")
    hints, made = typing.get_type_hints(cls), {}
    for key, given in table.items():
        value = made[key] = _typed(given, hints[key], f"{where}{key}")
        allowed = known[key].metadata.get("one_of")
        if allowed and value not in allowed:
            raise RecipeError(f"{where}{key} = {given!r}; expected one of {', '.join(allowed)}")
        low, high = known[key].metadata.get("within", (None, None))
        if low is not None and not low <= value <= high:
            raise RecipeError(f"{where}{key} = {given!r}; expected a number from {low:g} to {high:g}")
    return cls(**made)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return a value as its annotation wants it: lists as tuples, whole numbers as floats, tables as dataclasses."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return build(typing.cast(type[Any], hint), value, f"{where}.")
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


def check_recipe(recipe: Recipe) -> None:
    """Check what keys say together, and names in registries. No file of data is read.

    Raises:
        RecipeError: Names the keys, their values and what is allowed.
    """
    from geoseg.training.augment import check_augmentations
    from geoseg.training.losses import check_losses

    if not re.fullmatch(r"[\w.-]+", recipe.name):
        raise RecipeError(f"name = {recipe.name!r}; expected letters, digits, '-', '_' and '.', as files are named so")
    _check_network(recipe.network)

    fit, stride = recipe.fit, recipe.network.stride_px
    if fit.crop_px % stride or fit.read_px < fit.crop_px:
        raise RecipeError(
            f"fit.crop_px = {fit.crop_px} and fit.window_px = {fit.read_px}; expected a crop of a multiple of "
            f"{stride} and a window no smaller"
        )
    if recipe.chip_px % stride or recipe.chip_px <= 2 * recipe.halo_px:
        raise RecipeError(
            f"chip_px = {recipe.chip_px} and halo_px = {recipe.halo_px}; expected a chip of a multiple of {stride}, "
            "larger than two halos"
        )
    if not fit.steps and not fit.epochs and fit.minutes >= 1e6:
        raise RecipeError("fit has no end; expected fit.steps, fit.epochs or fit.minutes")
    classes, unscored = recipe.network.classes, set(fit.unscored)
    if not unscored < set(classes):
        raise RecipeError(f"fit.unscored = {list(fit.unscored)}; expected some of {', '.join(classes)}, not all")

    if not recipe.sources:
        raise RecipeError("sources is empty; expected at least one [[sources]] table")
    names = [source.name for source in recipe.sources]
    if len(set(names)) != len(names):
        raise RecipeError(f"sources have the names {', '.join(names)}; expected every name once")
    for source in recipe.sources:
        check_source(source)
    check_losses(recipe.loss, classes)
    check_augmentations(recipe.augment)


def _check_network(network: Network) -> None:
    from geoseg.networks import network_names

    if network.name not in network_names():
        raise RecipeError(f"network.name = {network.name!r}; expected one of {', '.join(network_names())}")
    if not len(network.mean) == len(network.std) == len(network.bands):
        raise RecipeError(
            f"network.mean has {len(network.mean)} and network.std {len(network.std)} values; "
            f"expected {len(network.bands)}, one for each of network.bands"
        )
    classes = network.classes
    if not classes or len(set(classes)) != len(classes) or len(classes) > MOST_CLASSES:
        raise RecipeError(f"network.classes = {list(classes)}; expected 1 to {MOST_CLASSES} different names")
    if network.target_class not in classes:
        raise RecipeError(f"network.target = {network.target!r}; expected one of {', '.join(classes)}")
    for name, color in network.colors.items():
        if name not in classes or not re.fullmatch(r"#[0-9A-Fa-f]{6}", color):
            raise RecipeError(f"network.colors.{name} = {color!r}; expected a class of network.classes and #RRGGBB")


def check_source(source: Source) -> None:
    """Check one of `[[sources]]`: where imagery and labels are, and how they are split; raises as `check_recipe`."""
    from geoseg.datasets.layouts import LAYOUTS, is_template
    from geoseg.datasets.splits import check_shares

    def refuse(problem: str) -> None:
        raise RecipeError(f"sources.{source.name}{problem}")

    given = [key for key in ("images", "layout", "paint_seeds") if getattr(source, key)]
    if len(given) != 1:
        refuse(f" needs one of images, layout and paint_seeds; it has {' and '.join(given) or 'none of them'}")
    if source.layout and source.layout not in LAYOUTS:
        refuse(f".layout = {source.layout!r}; expected one of {', '.join(LAYOUTS)}")
    if source.images and not source.labels:
        refuse(".labels is missing; expected a file, a folder or a template")
    if source.labels and not source.images:
        refuse(f".labels = {source.labels!r} has no effect: {given[0]} says where labels are")
    if is_template(source.labels) and not is_template(source.images):
        refuse(f".labels = {source.labels!r} is a template; expected one in images too, such as images/{{name}}.tif")
    if source.paint_seeds and len(source.paint_seeds) != 2:
        refuse(f".paint_seeds = {list(source.paint_seeds)}; expected [first, one past the last]")
    if min(source.bands, default=1) < 1:
        refuse(f".bands = {list(source.bands)}; expected band numbers from 1")

    ways = [key for key in ("areas", "validate_scenes", "fold") if getattr(source, key)]
    ways += ["split"] if source.split or source.split_file else []
    if len(ways) > 1:
        refuse(f" is split by {' and by '.join(ways)}; expected one of them")
    others = [key for key in ("validate", "validate_scenes", "split", "split_file", "fold") if getattr(source, key)]
    if source.validate_east and others:
        refuse(f".validate_east takes validation data from the training area; expected no {others[0]} as well")
    if (source.train or source.validate) and not source.areas:
        refuse(".areas is missing; expected the file of the areas that train and validate name")
    if source.areas and not (source.train or source.validate):
        refuse(f".areas = {source.areas!r}, but train and validate name none of them")
    if source.fold and len(source.fold) != 2:
        refuse(f".fold = {list(source.fold)}; expected [k, n]: the k-th of n folds, from 0")
    if source.split:
        check_shares(source.split, f"sources.{source.name}.")
