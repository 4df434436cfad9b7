"""torchgeo datasets and samplers: georeferenced pixels for networks."""

from geoseg.datasets.fill import fill_invalid
from geoseg.datasets.scenes import LatticeSampler, SceneDataset

__all__ = ["LatticeSampler", "SceneDataset", "fill_invalid"]
