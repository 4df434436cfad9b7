"""torchgeo datasets and samplers: georeferenced pixels for networks."""

from geoseg.datasets.scenes import LatticeSampler, SceneDataset, fill_invalid

__all__ = ["LatticeSampler", "SceneDataset", "fill_invalid"]
