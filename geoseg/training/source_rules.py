"""What the keys of one of `[[sources]]` may say together; checked before any file is read."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from geoseg.errors import RecipeError

if TYPE_CHECKING:
    from geoseg.training.recipe import Source

__all__ = ["check_source"]


def check_source(source: "Source") -> None:
    """Check what spans several keys of a source.

    Raises:
        RecipeError: naming the keys, what they say, and what is allowed.
    """
    for problem in (*_problems_of_place(source), *_problems_of_split(source)):
        raise RecipeError(f"sources.{source.name}{problem}")


def _problems_of_place(source: "Source") -> Iterator[str]:
    """Yield what is wrong with where imagery and truth lie."""
    from geoseg.datasets.layouts import LAYOUTS, is_template

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


def _problems_of_split(source: "Source") -> Iterator[str]:
    """Yield what is wrong with how it is split."""
    from geoseg.datasets.splits import check_shares

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
