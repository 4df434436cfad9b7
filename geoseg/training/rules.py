"""What the keys of a recipe may say together, and the names in it that registries know; no file of data is read."""

import re
from collections.abc import Iterator

from geoseg.errors import RecipeError
from geoseg.training.recipe import Network, Recipe, Source

__all__ = ["check_recipe", "check_source"]

MOST_CLASSES = 250
"""Class rasters are 8-bit, and the highest values mean that there is no class."""


def check_recipe(recipe: Recipe) -> None:
    """Check everything that spans several keys.

    Raises:
        RecipeError: naming the keys, what they say, and what is allowed.
    """
    from geoseg.networks import network_stride
    from geoseg.training.augment import check_augmentations
    from geoseg.training.losses import check_losses

    if not re.fullmatch(r"[\w.-]+", recipe.name):
        raise RecipeError(f"name = {recipe.name!r}; expected letters, digits, '-', '_' and '.', as files are named so")
    _check_network(recipe.network)

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
    """Check what spans several keys of one of `[[sources]]`: where imagery and labels are, and how it is split.

    Raises:
        RecipeError: naming the keys, what they say, and what is allowed.
    """
    for problem in _problems(source):
        raise RecipeError(f"sources.{source.name}{problem}")


def _problems(source: Source) -> Iterator[str]:
    from geoseg.datasets.layouts import LAYOUTS, is_template
    from geoseg.datasets.splits import check_shares

    given = [key for key in ("images", "layout", "paint_seeds") if getattr(source, key)]
    if len(given) != 1:
        yield f" needs one of images, layout and paint_seeds; it has {' and '.join(given) or 'none of them'}"
    if source.layout and source.layout not in LAYOUTS:
        yield f".layout = {source.layout!r}; expected one of {', '.join(LAYOUTS)}"
    if source.images and not source.labels:
        yield ".labels is missing; expected a file, a folder or a template"
    if source.labels and not source.images:
        yield f".labels = {source.labels!r} is of no use: {given[0] if given else 'layout'} says where labels are"
    if is_template(source.labels) and not is_template(source.images):
        yield f".labels = {source.labels!r} is a template; expected one in images too, such as images/{{name}}.tif"
    if source.paint_seeds and len(source.paint_seeds) != 2:
        yield f".paint_seeds = {list(source.paint_seeds)}; expected [first, one past the last]"
    if min(source.bands, default=1) < 1:
        yield f".bands = {list(source.bands)}; expected band numbers from 1"

    ways = [key for key in ("areas", "validate_scenes", "fold") if getattr(source, key)]
    ways += ["split"] if source.split or source.split_file else []
    if len(ways) > 1:
        yield f" is split by {' and by '.join(ways)}; expected one of them"
    others = [key for key in ("validate", "validate_scenes", "split", "split_file", "fold") if getattr(source, key)]
    if source.validate_east and others:
        yield f".validate_east takes validation from the training area; expected no {others[0]} beside it"
    if (source.train or source.validate) and not source.areas:
        yield ".areas is missing; expected the file of the areas that train and validate name"
    if source.areas and not (source.train or source.validate):
        yield f".areas = {source.areas!r}, but train and validate name none of them"
    if source.fold and len(source.fold) != 2:
        yield f".fold = {list(source.fold)}; expected [k, n]: the k-th of n folds, from 0"
    if source.split:
        yield from check_shares(source.split)
