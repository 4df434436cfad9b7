"""A recipe: all that decides what a training run does, read from TOML or YAML and checked before anything starts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geoseg.errors import RecipeError
from geoseg.training.schema import build, merge, one_of, override, read_table, within

__all__ = ["Augmentation", "Fit", "Network", "Recipe", "Source", "load_recipe"]

MOST_CLASSES = 250
"""Class rasters are 8-bit, and the highest values mean that there is no class."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """`[network]`: what is trained. `options` go to `build_network`.

    `encoder` is the network's own choice by default. `encoder_weights` is "" (none), "imagenet" (from the model hub),
    a pretrained weight of torchgeo, or a safetensors file; `start_from` is a bundle, by name or path, whose weights
    the whole network begins with. One class is trained against everything else; of several, `target` is the one that
    becomes footprints, and `colours` ("#RRGGBB" by class) are for pictures and rasters.
    """

    name: str
    encoder: str = ""
    encoder_weights: str = ""
    start_from: str = ""
    bands: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("building",)
    target: str = ""
    colours: dict[str, str] = field(default_factory=dict)
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
        gsd_m: Metres per pixel of pictures without georeference; 0 takes them as they are.
        colours: Class name to "#RRGGBB" of the masks, instead of `network.colours`.
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
    colours: dict[str, str] = field(default_factory=dict)
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
    """`[fit]`: sizes, optimiser and schedule.

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
    optimiser: str = one_of("adamw", "adam", default="adamw")
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
    licence: str = ""
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


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None, *, over: Sequence[Path] = ()) -> Recipe:
    """Read a recipe, lay others over it, change what `overrides` say, and check it.

    Args:
        path: the recipe, TOML or YAML.
        overrides: dotted keys and values; an element of a list goes by its `name` or `step`, as in
            `sources.accra.weight`. A text is read as TOML where it can be.
        over: more files, whose keys replace those before, such as the `[[sources]]` of other data.

    Raises:
        RecipeError: a file cannot be read, a key does not exist, or a value is not allowed.
    """
    table = read_table(Path(path))
    for upper in over:
        description = table.get("description")
        table = merge(table, read_table(upper)) | ({"description": description} if description else {})
    for key, value in (overrides or {}).items():
        override(table, key, value)
    recipe: Recipe = build(Recipe, table, "")
    _check_parts(recipe)
    return recipe


def _check_parts(recipe: Recipe) -> None:
    """Check what spans several keys, and names that live in registries."""
    from geoseg.training.augment import check_augmentations
    from geoseg.training.losses import check_losses

    if not re.fullmatch(r"[\w.-]+", recipe.name):
        raise RecipeError(f"name = {recipe.name!r}; expected letters, digits, '-', '_' and '.', as files are named so")
    _check_network(recipe.network)
    _check_sizes(recipe)
    _check_fit(recipe.fit, recipe.network.classes)
    _check_sources(recipe.sources)
    check_losses(recipe.loss, recipe.network.classes)
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
    for name, colour in network.colours.items():
        if name not in classes or not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
            raise RecipeError(f"network.colours.{name} = {colour!r}; expected a class of network.classes and #RRGGBB")


def _check_sizes(recipe: Recipe) -> None:
    from geoseg.networks import network_stride

    fit, stride = recipe.fit, network_stride(recipe.network.name, recipe.network.builder_options)
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


def _check_fit(fit: Fit, classes: tuple[str, ...]) -> None:
    if not fit.steps and not fit.epochs and fit.minutes >= 1e6:
        raise RecipeError("fit has no end; expected fit.steps, fit.epochs or fit.minutes")
    strange = sorted(set(fit.unscored) - set(classes))
    if strange or (classes and set(fit.unscored) == set(classes)):
        raise RecipeError(f"fit.unscored = {list(fit.unscored)}; expected some of {', '.join(classes)}, not all")


def _check_sources(sources: tuple[Source, ...]) -> None:
    from geoseg.training.source_rules import check_source

    if not sources:
        raise RecipeError("sources is empty; expected at least one [[sources]] table")
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise RecipeError(f"sources have the names {', '.join(names)}; expected every name once")
    for source in sources:
        check_source(source)
