"""A recipe: everything that decides what a training run does, as dataclasses that say which keys and values there are.

`build` makes them from the tables of a TOML or YAML file (`geoseg.training.library` reads it). What the keys may say
together is in `geoseg.training.rules`.
"""

import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from geoseg.errors import RecipeError

__all__ = ["Augmentation", "Fit", "Network", "Recipe", "Source", "build"]


def within(low: float, high: float, default: Any = MISSING) -> Any:
    """Declare a number from `low` to `high`."""
    return field(default=default, metadata={"within": (low, high)})


def one_of(*allowed: str, default: Any = MISSING) -> Any:
    """Declare a text that is one of `allowed`."""
    return field(default=default, metadata={"one_of": allowed})


@dataclass(frozen=True, kw_only=True)
class Network:
    """`[network]`: what is trained. `options` go to `build_network`.

    `encoder` is the network's own choice by default. `encoder_weights` is "" (none), "imagenet" (from the model hub),
    a pretrained weight of torchgeo, or a safetensors file; `start_from` is a bundle, by name or path, whose weights
    the whole network begins with. One class is trained against everything else; of several, `target` is the one that
    becomes footprints, and `colors` ("#RRGGBB" by class) are for pictures and rasters.
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


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of `[[sources]]`: imagery, its truth, and which of it serves what (docs/data.md).

    Attributes:
        name: A word for tables and messages.
        weight: Share of the crops; 0 for a source that only validates.
        layout: A folder layout of `geoseg.datasets.layouts`; `images` and `labels` are then left out.
        root: Folder of the layout, below the data folder.
        images: Path or pattern below the data folder, or a template such as `{area}/images/{name}.jpg`.
        labels: A file, a folder of files named as the images, or a template in the words of `images`.
        exclude: Patterns of names that are not used at all.
        layer: Layer of a file of polygons that has several.
        label_column: Attribute of the polygons that names their class; all are the target class without it.
        empty_ok: Accept an image that no polygon touches.
        bands: One-based bands of the imagery for the network's, in its order.
        gsd_m: Meters per pixel of pictures without georeference; 0 takes them as they are.
        colors: Class name to "#RRGGBB" of the masks, instead of `network.colors`.
        also: Further "#RRGGBB" to class name, or to "unknown".
        values: A mask's numbers, as text, to class name, or to "unknown".
        areas: Polygons whose `split` is named in `train` and `validate`.
        train: Areas that are trained on.
        validate: Areas that are validated on.
        validate_scenes: Patterns of names that are validated on.
        test_scenes: Patterns of names that are neither trained nor validated on.
        split: Shares of the files for training, validation and test, drawn with `fit.seed`.
        split_file: JSON file of the names in each; drawn by `split` and written where there is none.
        fold: `[k, n]`: the k-th of n folds is validated on, from 0.
        validate_east: Share of the training area's columns, from the east, that is validated on instead.
        validate_px: Side of the middle of an image that is validated on; 0 for all of it.
        complete: False where what is marked is true but buildings are missing.
        paint_seeds: Instead of images: scenes painted by `geoseg.testing`, first seed and one past the last.
        paint_size_px: Side of a painted scene.
    """

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
    """`[fit]`: sizes, optimizer and schedule.

    The run ends after `steps`, `epochs` or `minutes`, whichever is first. An epoch is `validate_every` steps, or one
    pass over the training pixels where that is 0. The learning rate follows progress, the larger of steps done and
    time used, so that it reaches its end on a slow day too: over `warm_up` it rises, then `schedule` takes it to
    `last_learning_rate` (a share of `learning_rate`): along a `cosine`; `plateau`: times `plateau_factor` after
    `plateau_patience` epochs without a lower validation loss; `one-cycle`: up over 30 % and down again; or `constant`.
    `early_stopping` is the epochs without a better IoU after which the run ends, 0 for never.
    """

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
        """Side of the windows that are read, from which crops are cut: `window_px`, else half as much again."""
        return self.window_px or self.crop_px * 3 // 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of a recipe. `loss` maps the name of a loss to its weight, or to a table of `weight` and options."""

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
    """Make one of the dataclasses above from a table, checking keys, types and ranges.

    Args:
        cls: the dataclass.
        table: keys and values, as TOML and YAML have them.
        where: dotted name of the table with a dot at its end, for messages.

    Raises:
        RecipeError: naming the key, the value and what is allowed.
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
