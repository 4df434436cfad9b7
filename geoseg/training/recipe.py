"""A recipe: everything that decides what a training run does, as dataclasses of keys and the values that they may have.

pydantic makes them from the tables of a TOML or YAML file (`geoseg.training.library` reads it); `check_recipe` checks
keys that depend on each other. docs/training.md and docs/data.md describe the keys.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from geoseg.errors import RecipeError

__all__ = [
    "Augmentation",
    "Auxiliary",
    "Fit",
    "Network",
    "Recipe",
    "Source",
    "build_recipe",
    "check_recipe",
    "check_source",
]

MOST_CLASSES = 250
"""Class rasters are 8-bit, and the highest values mean that there is no class."""

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def within(low: float, high: float) -> Any:
    """Declare the range of a number."""
    return Field(ge=low, le=high)


@dataclass(frozen=True, kw_only=True)
class Network:
    """`[network]`: what is trained (docs/networks.md). `options` are keyword arguments of `build_network`.

    `encoder_weights` is "" (none), "imagenet", a pretrained weight of torchgeo, or a safetensors file; `start_from` is
    a bundle, by name or path, whose weights the whole network starts from.
    """

    __pydantic_config__: ClassVar = _STRICT
    name: str
    encoder: str = ""
    encoder_weights: str = ""
    start_from: str = ""
    bands: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("building",)
    target: str = ""
    auxiliary: tuple[str, ...] = ()
    colors: dict[str, str] = field(default_factory=dict)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_max: Annotated[float, within(1e-9, 1e9)] = 255.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def target_class(self) -> str:
        """The class whose probability becomes the mask: `target`, else "building", else the first but "background"."""
        named = [name for name in self.classes if name != "background"] or list(self.classes)
        return self.target or ("building" if "building" in named else named[0])

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the network's channels: the classes, then the auxiliary ones."""
        return (*self.classes, *self.auxiliary)

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
class Auxiliary:
    """`[auxiliary]`: what the channels of `network.auxiliary` learn (docs/training.md)."""

    __pydantic_config__: ClassVar = _STRICT
    edge_m: Annotated[float, within(0.01, 100)] = 0.5
    contact_m: Annotated[float, within(0.01, 100)] = 1.2
    distance_m: Annotated[float, within(0.01, 1000)] = 4.0
    single_m2: Annotated[float, within(0, 1e9)] = 150.0
    gamma: Annotated[float, within(0, 10)] = 0.0
    weights: dict[str, Annotated[float, within(0, 1000)]] = field(default_factory=dict)

    def weight(self, channel: str) -> float:
        """Weight of a channel's loss."""
        return self.weights.get(channel, 0.5)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of `[[sources]]`: imagery, its labels, and what they are used for (docs/data.md)."""

    __pydantic_config__: ClassVar = _STRICT
    name: str
    weight: Annotated[float, within(0, 1000)] = 1.0
    layout: str = ""
    root: str = ""
    images: str = ""
    labels: str = ""
    exclude: tuple[str, ...] = ()
    layer: str = ""
    label_column: str = ""
    empty_ok: bool = False
    bands: tuple[int, ...] = ()
    nodata: float | None = None
    alpha: bool | None = None
    gsd_m: Annotated[float, within(0, 1000)] = 0.0
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
    validate_east: Annotated[float, within(0, 0.9)] = 0.0
    validate_west: Annotated[float, within(0, 0.9)] = 0.0
    validate_px: Annotated[int, within(0, 1_000_000)] = 0
    complete: bool = True
    instances: bool = False
    distill: bool = False
    paint_seeds: tuple[int, ...] = ()
    paint_size_px: Annotated[int, within(64, 16384)] = 1024
    paint_kind: Literal["plain", "dense"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One of `[[augment]]`: a step of `geoseg.training.augment`, how often it happens, and its range."""

    __pydantic_config__: ClassVar = _STRICT
    step: str
    probability: Annotated[float, within(0, 1)] = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`[fit]`: sizes, optimizer and schedule (docs/training.md); 0 steps or epochs set no limit."""

    __pydantic_config__: ClassVar = _STRICT
    batch: Annotated[int, within(1, 4096)] = 8
    crop_px: Annotated[int, within(32, 8192)] = 256
    window_px: Annotated[int, within(0, 8192)] = 0
    steps: Annotated[int, within(0, 100_000_000)] = 0
    epochs: Annotated[int, within(0, 1_000_000)] = 0
    minutes: Annotated[float, within(0.01, 1_000_000)] = 1e6
    validate_every: Annotated[int, within(0, 1_000_000)] = 0
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Annotated[float, within(1e-8, 10)] = 1e-3
    encoder_rate: Annotated[float, within(0, 100)] = 1.0
    weight_decay: Annotated[float, within(0, 10)] = 1e-2
    schedule: Literal["cosine", "plateau", "one-cycle", "constant"] = "cosine"
    warm_up: Annotated[float, within(0, 1)] = 0.05
    last_learning_rate: Annotated[float, within(0, 1)] = 0.01
    plateau_factor: Annotated[float, within(0.01, 0.99)] = 0.5
    plateau_patience: Annotated[int, within(0, 10_000)] = 5
    early_stopping: Annotated[int, within(0, 10_000)] = 0
    clip_norm: Annotated[float, within(0, 1e6)] = 1.0
    average_decay: Annotated[float, within(0, 0.999999)] = 0.998
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: Annotated[int, within(0, 1024)] = 0
    workers: Annotated[int, within(0, 256)] = 0
    seed: Annotated[int, within(0, 2**31)] = 0
    unscored: tuple[str, ...] = ()
    unsure_from: Annotated[float, within(0, 1)] = 0.3
    unsure_above: Annotated[float, within(0, 1)] = 0.25
    fixed_normalization: bool = False
    distill_from: str = ""
    distill_weight: Annotated[float, within(0, 1000)] = 1.0

    @property
    def read_px(self) -> int:
        """Side of the windows that crops are cut from: `window_px`, by default 1.5 times `crop_px`."""
        return self.window_px or self.crop_px * 3 // 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe. `loss` maps the name of a loss to its weight, or to a table of `weight` and options."""

    __pydantic_config__: ClassVar = _STRICT
    name: str
    version: str = "1"
    description: str = ""
    license: str = ""
    gsd_m: Annotated[float, within(0.001, 1000)]
    threshold: Annotated[float, within(0.01, 0.99)] = 0.5
    min_area_m2: Annotated[float, within(0, 1e9)] = 0.0
    split_depth: Annotated[float, within(0, 1)] = 0.0
    chip_px: Annotated[int, within(32, 8192)] = 512
    halo_px: Annotated[int, within(0, 4096)] = 64
    network: Network
    auxiliary: Auxiliary = field(default_factory=Auxiliary)
    sources: tuple[Source, ...]
    loss: dict[str, Any]
    augment: tuple[Augmentation, ...] = ()
    fit: Fit

    @property
    def losses(self) -> dict[str, Any]:
        """The entries of `loss`, and the weight of each auxiliary channel's loss by the channel's name."""
        return self.loss | {name: self.auxiliary.weight(name) for name in self.network.auxiliary}


_PARTS = {"network": Network, "auxiliary": Auxiliary, "sources": Source, "augment": Augmentation, "fit": Fit}


def build_recipe(table: Mapping[str, Any]) -> Recipe:
    """Make a recipe from a table of TOML or YAML; check keys, types and ranges.

    Raises:
        RecipeError: A key or a value is not allowed; names both and what is allowed.
    """
    try:
        made: Recipe = TypeAdapter(Recipe).validate_json(json.dumps(table, default=str))
    except ValidationError as err:
        order = ("unexpected_keyword_argument", "missing")
        errors = err.errors(include_url=False)
        found = min(errors, key=lambda error: order.index(error["type"]) if error["type"] in order else len(order))
        place, value = found["loc"], found["input"]
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        if found["type"] == "unexpected_keyword_argument":
            known = fields(_PARTS[str(place[0])] if len(place) > 1 else Recipe)
            expected = f"expected among {', '.join(field.name for field in known)}"
            raise RecipeError(f"unknown key {key} = {value!r}; {expected}") from None
        if found["type"] == "missing":
            hint = "" if len(place) > 1 else "; a file of data or settings alone is given as `over`, in addition to one"
            raise RecipeError(f"the key {key} is missing from the recipe{hint}") from None
        allowed = found["msg"].replace("Input should be", "it should be").replace("an object", "a table")
        raise RecipeError(f"{key} = {value!r}; {allowed}") from None
    return made


def check_recipe(recipe: Recipe) -> None:
    """Check keys that depend on each other, and names in registries. No file of data is read.

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
    distilled = [source.name for source in recipe.sources if source.distill]
    if distilled and not fit.distill_from:
        raise RecipeError(f"sources.{distilled[0]}.distill = true, but fit.distill_from names no bundle to learn from")
    if fit.distill_from and not distilled:
        raise RecipeError(f"fit.distill_from = {fit.distill_from!r} has no effect; give sources distill = true")
    for name in recipe.auxiliary.weights.keys() - set(recipe.network.auxiliary):
        channels = ", ".join(recipe.network.auxiliary) or "there is none"
        raise RecipeError(f"unknown key auxiliary.weights.{name}; expected channels of network.auxiliary: {channels}")
    check_losses(recipe.loss, classes)
    check_augmentations(recipe.augment, crop_px=fit.crop_px, bands=len(recipe.network.bands))


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
    from geoseg.datasets.auxiliary import AUXILIARY

    auxiliary = network.auxiliary
    if not set(auxiliary) <= set(AUXILIARY) or len(set(network.channels)) != len(network.channels):
        raise RecipeError(
            f"network.auxiliary = {list(auxiliary)}; expected different names among {', '.join(AUXILIARY)}, which are "
            "not those of classes"
        )
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
    if source.paint_kind != "plain" and not source.paint_seeds:
        refuse(f".paint_kind = {source.paint_kind!r} has no effect without paint_seeds")
    unused = [key for key in ("colors", "also", "label_column", "paint_seeds") if getattr(source, key)]
    if source.instances and unused:
        refuse(f".instances = true, and {unused[0]} is given; expected label rasters of the buildings' numbers")
    if min(source.bands, default=1) < 1:
        refuse(f".bands = {list(source.bands)}; expected band numbers from 1")

    ways = [key for key in ("areas", "validate_scenes", "fold") if getattr(source, key)]
    ways += ["split"] if source.split or source.split_file else []
    if len(ways) > 1:
        refuse(f" is split by {' and by '.join(ways)}; expected one of them")
    others = [key for key in ("validate", "validate_scenes", "split", "split_file", "fold") if getattr(source, key)]
    sides = [key for key in ("validate_east", "validate_west") if getattr(source, key)]
    others += sides[1:]
    if sides and others:
        refuse(f".{sides[0]} takes validation data from the training area; expected no {others[0]} as well")
    if (source.train or source.validate) and not source.areas:
        refuse(".areas is missing; expected the file of the areas that train and validate name")
    if source.areas and not (source.train or source.validate):
        refuse(f".areas = {source.areas!r}, but train and validate name none of them")
    if source.fold and len(source.fold) != 2:
        refuse(f".fold = {list(source.fold)}; expected [k, n]: the k-th of n folds, from 0")
    if source.split:
        check_shares(source.split, f"sources.{source.name}.")
