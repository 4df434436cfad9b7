"""How good a model is: pixel metrics against labels."""

from geoseg.evaluate.confusion import Confusion
from geoseg.evaluate.evaluate import EvaluateSettings, Evaluation, evaluate_scenes

__all__ = ["Confusion", "EvaluateSettings", "Evaluation", "evaluate_scenes"]
