"""Crops of prepared scenes: random ones over several sources for training, a lattice of chips for validation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from torchgeo.samplers import RandomGeoSampler

from geoseg.datasets.labels import IGNORED
from geoseg.datasets.prepared import PreparedScene
from geoseg.errors import RecipeError
from geoseg.grid import Window
from geoseg.training.sources import PreparedSource

__all__ = ["MixedCrops", "MixedSampler", "ValidationChips"]

_ENDLESS = 1 << 40

Sample = dict[str, Tensor]


class MixedCrops(Dataset[Sample]):
    """Windows of several scenes, by (scene's number, torchgeo query)."""

    def __init__(self, sources: Sequence[PreparedSource], *, window_px: int) -> None:
        """Open the training scenes of `sources`; scenes without room or truth for a window are left out."""
        opened = [(n, PreparedScene(p, crop_px=window_px)) for n, s in enumerate(sources) for p in s.train]
        kept = [(n, scene) for n, scene in opened if len(scene)]
        if not kept:
            raise RecipeError(f"no training scene has room for a window of {window_px} px; lower fit.window_px")
        self.scenes = [scene for _, scene in kept]
        shares = np.array([sources[n].weight for n, _ in kept])
        boxes = np.array([len(scene) for scene in self.scenes])
        totals = np.bincount([n for n, _ in kept], weights=boxes)
        self.odds = torch.from_numpy(shares * boxes / totals[[n for n, _ in kept]])

    def __getitem__(self, index: Any) -> Sample:
        """Return the image (band, y, x) uint8 and the mask (y, x) uint8 of a window."""
        scene, query = index
        return dict(self.scenes[scene][query])


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
    """All validation scenes in chips with context; the context's truth is `IGNORED`, so that each pixel counts once."""

    def __init__(self, sources: Sequence[PreparedSource], *, chip_px: int, halo_px: int) -> None:
        """Cut the validation scenes of `sources` into chips that own `chip_px` - 2 `halo_px` pixels a side."""
        self.names = tuple(source.name for source in sources if source.validate)
        self.halo_px, self.core_px = halo_px, chip_px - 2 * halo_px
        paths: list[tuple[int, Path]] = [(self.names.index(s.name), p) for s in sources for p in s.validate]
        self.scenes = [(source, PreparedScene(path)) for source, path in paths]
        self.chips = [(n, core) for n, (_, scene) in enumerate(self.scenes) for core in self._cores(scene)]

    def _cores(self, scene: PreparedScene) -> Iterator[Window]:
        height, width = scene.window.shape
        for row in range(0, height, self.core_px):
            for col in range(0, width, self.core_px):
                core = Window(row, col, self.core_px, self.core_px)
                owned = core.intersect(scene.window)
                if owned and bool((scene.pixels[owned.slices][..., -1] != IGNORED).any()):
                    yield core

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        """Return image (band, y, x) uint8, mask (y, x) uint8 and the source's number of a chip."""
        number, core = self.chips[index]
        source, scene = self.scenes[number]
        wanted = core.expand(self.halo_px)
        seen = wanted.intersect(scene.window)
        assert seen is not None
        sample = scene.read(seen)
        at = seen.relative_to(wanted)
        pad = (at.col, wanted.width - at.cols.stop, at.row, wanted.height - at.rows.stop)
        mask = torch.full(wanted.shape, IGNORED, dtype=torch.uint8)
        mask[at.slices] = sample["mask"]
        inner = torch.full_like(mask, IGNORED)
        own = slice(self.halo_px, self.halo_px + self.core_px)
        inner[own, own] = mask[own, own]
        image = functional.pad(sample["image"].float(), pad, mode="replicate").to(torch.uint8)
        return {"image": image, "mask": inner, "source": torch.tensor(source)}
