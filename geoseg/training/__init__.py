"""Train networks from recipes."""

from geoseg.training.fit import train_recipe
from geoseg.training.recipe import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe", "train_recipe"]
