"""Experiments: variants of a recipe, each trained in a folder of its own, on scenes that are prepared once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.training.folder import is_finished
from geoseg.training.recipe import Recipe

__all__ = ["Experiment"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What cross-validation, fine-tuning and search share: where their trainings lie and what they read.

    Attributes:
        folder: Holds a folder for each training, and `prepared`, the scenes of all of them.
        data: Folder that the recipes' paths start from.
        beside: Another folder where encoder weights may lie.
    """

    folder: Path
    data: Path
    beside: Path = Path()

    def train(
        self,
        name: str,
        plan: Recipe,
        *,
        hidden: Mapping[str, Sequence[tuple[Path, str]]] | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """Train a recipe unless that is finished, and return its `metrics.json`.

        Args:
            name: Name of its folder.
            plan: The recipe.
            hidden: By source the areas that training must not see: a file, and their name in it.
            again: Write the results of a finished training again.
        """
        folder = self.folder / name
        if again or not is_finished(plan, folder):
            from geoseg.training.block_split import hide_areas
            from geoseg.training.fit import train_plan
            from geoseg.training.sources import TargetSpec, prepare_source

            cache, target = self.folder / "prepared", TargetSpec.of(plan)
            for source in plan.sources:
                areas = (hidden or {}).get(source.name, ())
                if areas:
                    prepared = prepare_source(source, data=self.data, cache=cache, target=target)
                    for path in prepared.train:
                        for file, area in areas:
                            hide_areas(path, file, area)
            train_plan(plan, data=self.data, folder=folder, beside=self.beside, cache=cache)
        metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics
