"""How good a model, a run or another tool is: pixels and buildings against labels."""

from geoseg.evaluate.confusion import Confusion
from geoseg.evaluate.evaluate import Evaluation, evaluate_scenes
from geoseg.evaluate.levels import Levels
from geoseg.evaluate.scores import SceneScores
from geoseg.evaluate.settings import EvaluateSettings
from geoseg.evaluate.truth import LabelSettings

__all__ = ["Confusion", "EvaluateSettings", "Evaluation", "LabelSettings", "Levels", "SceneScores", "evaluate_scenes"]
