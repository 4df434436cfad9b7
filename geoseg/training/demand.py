"""What a recipe asks of the pixels and the truth of every source."""

from dataclasses import dataclass
from typing import Any

from geoseg.datasets.coding import Coding, plan_coding
from geoseg.grid import Lattice, fit_lattice
from geoseg.training.recipe import Recipe, Source

__all__ = ["Demand", "plan_demand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Pixels of `gsd_m`, `bands` of them, truth in `classes`, and room for chips in validation.

    Attributes:
        gsd_m: Metres per pixel.
        bands: The network's bands.
        stretched: Bring pixels that are not 8-bit to 0-255, as `geoseg run` does; else their values stay.
        classes: The network's classes.
        target: The class that polygons burn.
        colours: Class name to "#RRGGBB".
        unscored: Classes that may be missing.
        chip_px: Largest side of inference's chips.
        halo_px: Context on each side of a chip.
        stride_px: A chip's sides are multiples of this.
        seed: Draws the split.
    """

    gsd_m: float
    bands: tuple[str, ...]
    stretched: bool
    classes: tuple[str, ...]
    target: str
    colours: dict[str, str]
    unscored: tuple[str, ...]
    chip_px: int
    halo_px: int
    stride_px: int
    seed: int

    def coding_of(self, source: Source) -> Coding:
        """Return what the masks of a source mean.

        Raises:
            RecipeError: the source's colours or values cannot be used.
        """
        return plan_coding(
            self.classes,
            target=self.target,
            colours=source.colours or self.colours,
            also=source.also,
            values=source.values,
            where=f"sources.{source.name}.",
        )

    def lattice_of(self, shape: tuple[int, int]) -> Lattice:
        """Return the chips that inference lays over a scene of this height and width."""
        return fit_lattice(shape, chip_px=self.chip_px, halo_px=self.halo_px, multiple_px=self.stride_px)

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides the pixels of a part that is trained on."""
        keys = ("gsd_m", "bands", "stretched", "classes", "target", "colours")
        return {key: getattr(self, key) for key in keys}


def plan_demand(recipe: Recipe) -> Demand:
    """Return what a recipe asks of every source."""
    from geoseg.networks import network_stride

    network = recipe.network
    return Demand(
        gsd_m=recipe.gsd_m,
        bands=network.bands,
        stretched=network.pixel_max == 255,
        classes=network.classes,
        target=network.target_class,
        colours=network.colours,
        unscored=recipe.fit.unscored,
        chip_px=recipe.chip_px,
        halo_px=recipe.halo_px,
        stride_px=network_stride(network.name, network.builder_options),
        seed=recipe.fit.seed,
    )
