"""Crops of prepared scenes: random ones over several sources for training, a lattice of chips for validation."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchgeo.samplers import RandomGeoSampler

from geoseg.datasets.labels import IGNORED
from geoseg.datasets.prepared import PreparedScene, is_known
from geoseg.errors import RecipeError
from geoseg.grid import Window, fit_lattice
from geoseg.training.sources import PreparedSource

__all__ = ["MixedCrops", "MixedSampler", "ValidationChips"]

log = logging.getLogger(__name__)

_ENDLESS = 1 << 40

Sample = dict[str, Tensor]


class MixedCrops(Dataset[Sample]):
    """Windows of several scenes, by (scene's number, torchgeo query)."""

    def __init__(self, sources: Sequence[PreparedSource], *, window_px: int) -> None:
        """Open the training scenes of `sources`; those without room or truth for a window are left out, and named.

        Attribute `pixels` is how many the scenes hold.
        """
        opened = [(n, PreparedScene(p, crop_px=window_px)) for n, s in enumerate(sources) for p in s.train]
        kept = [(n, scene) for n, scene in opened if len(scene)]
        _warn_of_left_out([scene for _, scene in opened if not len(scene)], len(opened), window_px)
        if not kept:
            raise RecipeError(f"no training scene has room for a window of {window_px} px; lower fit.window_px")
        self.scenes = [scene for _, scene in kept]
        self.pixels = sum(scene.window.height * scene.window.width for scene in self.scenes)
        shares = np.array([sources[n].weight for n, _ in kept])
        boxes = np.array([len(scene) for scene in self.scenes])
        totals = np.bincount([n for n, _ in kept], weights=boxes)
        self.odds = torch.from_numpy(shares * boxes / totals[[n for n, _ in kept]])

    def __getitem__(self, index: Any) -> Sample:
        """Return the image (band, y, x) uint8 and the mask (y, x) uint8 of a window."""
        scene, query = index
        return dict(self.scenes[scene][query])


def _warn_of_left_out(scenes: Sequence[PreparedScene], total: int, window_px: int) -> None:
    if scenes:
        names = ", ".join(scene.about.get("scene", scene.path.stem) for scene in scenes[:3])
        more = f" and {len(scenes) - 3} more" if len(scenes) > 3 else ""
        message = "%d of %d training scenes have no room or too little truth for a window of %d px: %s%s are left out"
        log.warning(message, len(scenes), total, window_px, names, more)


class MixedSampler(Sampler[list[Any]]):
    """Batches of `MixedCrops`: the source is drawn by its weight, the place by torchgeo's `RandomGeoSampler`."""

    def __init__(self, crops: MixedCrops, *, window_px: int, batch: int, batches: int) -> None:
        """Draw `batches` batches per epoch; random numbers come from torch's global generator."""
        self.crops, self.batch, self.batches = crops, batch, batches
        self.samplers = [RandomGeoSampler(scene, size=window_px, length=_ENDLESS) for scene in crops.scenes]

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield lists of (scene's number, query)."""
        queries = [iter(sampler) for sampler in self.samplers]
        for _ in range(self.batches):
            chosen = torch.multinomial(self.crops.odds, self.batch, replacement=True).tolist()
            yield [(scene, next(queries[scene])) for scene in chosen]

    def __len__(self) -> int:
        """Return batches per epoch."""
        return self.batches


class ValidationChips(Dataset[Sample]):
    """All validation scenes in the chips that inference would cut: its lattice, its context, its mirrored borders.

    The context's truth is `IGNORED`, so that each pixel counts once. Chips of one scene have one shape.
    """

    def __init__(self, sources: Sequence[PreparedSource], *, chip_px: int, halo_px: int, stride_px: int = 32) -> None:
        """Lay `geoseg.grid.fit_lattice` over the validation scenes of `sources`; chips without truth are left out."""
        self.names = tuple(source.name for source in sources if source.validate)
        paths: list[tuple[int, Path]] = [(self.names.index(s.name), p) for s in sources for p in s.validate]
        self.scenes = [(source, PreparedScene(path)) for source, path in paths]
        self.lattices = [
            fit_lattice(scene.scene_shape, chip_px=chip_px, halo_px=halo_px, multiple_px=stride_px)
            for _, scene in self.scenes
        ]
        self.chips = [(n, chip) for n in range(len(self.scenes)) for chip in self._chips_of(n)]

    def _chips_of(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield the chips of a scene that own any truth."""
        scene, lattice = self.scenes[number][1], self.lattices[number]
        stored = Window(*scene.origin, *scene.window.shape)
        rows, cols = lattice.counts
        for chip in itertools.product(range(rows), range(cols)):
            core = lattice.core_window(*chip).intersect(stored)
            if core and bool(is_known(scene.pixels[core.relative_to(stored).slices][..., -1]).any()):
                yield chip

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        """Return image (band, y, x), mask (y, x) uint8 and the source's number of a chip."""
        number, chip = self.chips[index]
        (source, scene), lattice = self.scenes[number], self.lattices[number]
        seen, core = lattice.chip_window(*chip), lattice.core_window(*chip)
        sample = scene.read_chip(seen)
        mask = torch.full_like(sample["mask"], IGNORED)
        own = core.relative_to(seen).slices
        mask[own] = sample["mask"][own]
        return {"image": sample["image"], "mask": mask, "source": torch.tensor(source)}

    def batches(self, size: int) -> list[list[int]]:
        """Return the chips' numbers in batches of at most `size` chips of one shape, for a `DataLoader`."""
        shapes = [self.lattices[number].chip_shape for number, _ in self.chips]
        groups = itertools.groupby(range(len(shapes)), key=shapes.__getitem__)
        return [list(batch) for _, group in groups for batch in _batched(list(group), size)]


def _batched(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))
