"""What tests and first tries need: painted aerial scenes with true footprints, and scenes that encode positions."""

from geoseg.testing.painter import PaintedScene, paint_scene
from geoseg.testing.positions import decode_positions, position_values, write_position_scene
from geoseg.testing.sample import SAMPLE_SEED, label_raster, write_sample, write_training_scenes

__all__ = [
    "SAMPLE_SEED",
    "PaintedScene",
    "decode_positions",
    "label_raster",
    "paint_scene",
    "position_values",
    "write_position_scene",
    "write_sample",
    "write_training_scenes",
]
