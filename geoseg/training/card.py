"""The model card of a training run, in Markdown, from its recipe and its scores alone."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg._version import __version__
from geoseg.io.aside import write_text
from geoseg.io.tables import write_table
from geoseg.training.library import recipe_text
from geoseg.training.recipe import Recipe, Source

if TYPE_CHECKING:
    from geoseg.networks.facts import NetworkFacts

__all__ = ["CARD", "SCORES", "write_card"]

CARD = "model-card.md"

SCORES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}
"""Titles of the scores of a class in tables."""

_PICTURES = {
    "curves.png": "Losses, IoU and learning rate over the steps",
    "predictions.png": "Validation chips: image, labels, prediction and difference",
}


def write_card(
    folder: Path, recipe: Recipe, metrics: Mapping[str, Any], *, bundle: Path, facts: "NetworkFacts | None" = None
) -> Path:
    """Write the card beside the bundle, with links to the pictures there; return its path.

    Args:
        folder: Folder of `model-card.md`.
        recipe: The recipe.
        metrics: The content of `metrics.json`: `Scores.figures`, and `step`, `steps`, `minutes`, `loss`, `losses` if
            they are known.
        bundle: The weights, already written.
        facts: Cost and receptive field of the network.
    """
    several = len(recipe.network.classes) > 2
    has_interior = not {"edge", "contact"}.isdisjoint(recipe.network.auxiliary)
    further = [*(["classes.tif"] if several else []), *(["interior.tif"] if has_interior else [])]
    results = ["probability.tif", "mask.tif", *further, "buildings.gpkg"]
    use = (
        f"## How to run it\n\n```sh\ngeoseg run scene.tif --model {bundle.name}\n```\n\n"
        f"Results: {', '.join(f'`{name}`' for name in results)}. "
        "To score it on areas of your own, use `geoseg evaluate`."
    )
    pictures = [f"![{text}]({name})" for name, text in _PICTURES.items() if (folder / name).is_file()]
    sections = [
        _head(recipe, metrics, bundle, facts),
        use,
        _data(recipe),
        _figures(recipe, metrics),
        _training(recipe),
        *(["\n\n".join(["## Pictures", *pictures])] if pictures else []),
        _limits(recipe, metrics),
    ]
    return write_text(folder / CARD, "\n\n".join(sections) + "\n")


def _head(recipe: Recipe, metrics: Mapping[str, Any], bundle: Path, facts: "NetworkFacts | None") -> str:
    network = recipe.network
    options = "".join(f", `{key} = {value!r}`" for key, value in network.options.items())
    rows = [("network", f"`{network.name}`" + (f" on `{network.encoder}`" if network.encoder else "") + options)]
    if facts is not None:
        reach = f"pixels up to {facts.receptive_px} px away"
        if facts.receptive_px is None:
            reach = "all of its chip"
            reach += f", beyond {facts.local_px} px through averages alone" if facts.local_px else ""
        rows += [
            ("cost", f"{facts.parameters / 1e6:.2f} M parameters, {facts.gflop_per_mpx:.0f} GFLOP per Mpx"),
            ("a pixel depends on", reach),
        ]

    output = f"one probability per pixel: {network.target_class} or not"
    if len(network.classes) > 1:
        output = f"one probability per pixel for each of {', '.join(network.classes)}"
        output += f"; footprints are of the class {network.target_class}"
    if network.auxiliary:
        output += f"; auxiliary channels {', '.join(network.auxiliary)}"
    threshold = f"{recipe.threshold:g}"
    if len(network.classes) > 2:
        threshold += " for footprints; the class raster shows the likeliest class"
    elif metrics.get("best_threshold") is not None:
        threshold += f"; {metrics['best_threshold']:g} is best on the validation pixels"
    start = f"encoder weights `{network.encoder_weights}`" if network.encoder_weights else "random weights"
    if network.start_from:
        start = f"the weights of `{network.start_from}`"
    trained = [
        *([f"{metrics['steps']} steps"] if "steps" in metrics else []),
        *([f"{metrics['minutes']:.0f} minutes"] if "minutes" in metrics else []),
        *([f"weights of step {metrics['step']}"] if "step" in metrics else []),
        f"geoseg {__version__}",
    ]
    rows += [
        ("input", f"{', '.join(network.bands)}; {recipe.gsd_m:g} m per pixel; {network.pixel_max:g} counts as 1"),
        ("output", output),
        ("threshold", threshold),
        ("smallest footprint", f"{recipe.min_area_m2:g} m²"),
        *([("depth between buildings", f"{recipe.split_depth:g}")] if recipe.split_depth else []),
        ("chips", f"at most {recipe.chip_px} px, {recipe.halo_px} px of them context on every side"),
        ("file", f"`{bundle.name}`, {bundle.stat().st_size / 1e6:.1f} MB"),
        ("started from", start),
        *([("distilled from", f"`{recipe.fit.distill_from}`")] if recipe.fit.distill_from else []),
        ("trained", ", ".join(trained)),
        ("license of the weights", recipe.license or "not stated in the recipe"),
    ]
    said = [recipe.description] if recipe.description else []
    return "\n\n".join([f"# Model card: `{recipe.name}`, version {recipe.version}", *said, write_table(["", ""], rows)])


def _data(recipe: Recipe) -> str:
    total = sum(source.weight for source in recipe.sources) or 1.0
    rows, notes = [], []
    for source in recipe.sources:
        plain = Source(name=source.name, weight=source.weight)
        told = {f.name: getattr(source, f.name) for f in fields(Source)}
        said = [
            f"`{key} = {list(value) if isinstance(value, tuple) else value!r}`"
            for key, value in told.items()
            if value != getattr(plain, key)
        ]
        rows.append((source.name, f"{source.weight / total:.0%}", ", ".join(said)))
        if not source.complete:
            notes.append(f"Labels of {source.name} are incomplete: some buildings are missing.")
    terms = "The recipe does not state the licenses of imagery and labels: check them before you pass the model on."
    return "\n\n".join(["## Data", write_table(["source", "share of the crops", "in the recipe"], rows), *notes, terms])


def _figures(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    """Return the tables of sources and classes, of several classes the confusion matrix, and the losses."""
    if not metrics.get("sources"):
        return "## Figures\n\nThere were no validation data: the quality of this network has not been measured."
    classes, together = recipe.network.classes, metrics["all"]
    several = len(classes) > 2
    caution = (
        "Scores of the validation pixels. They are slightly optimistic, as the weights were chosen by them: "
        "score areas that were not used with `geoseg evaluate`."
    )
    headline = f"{'mean IoU' if several else 'IoU'}, mean over the sources: **{_figure(metrics['headline'])}**."

    heads = ({} if several else SCORES) | {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    of_sources = dict(metrics["sources"])
    if len(of_sources) > 1:
        of_sources["all pixels together"] = together
    rows = [(name, *(_figure(m[key]) for key in heads), _mpx(m["pixels"])) for name, m in of_sources.items()]
    tables = [write_table(["source", *heads.values(), "Mpx"], rows)]

    rows = [
        (
            name + (" (not in the mean)" if name in recipe.fit.unscored else ""),
            *(_figure(m[key]) for key in SCORES),
            _mpx(m["pixels"]),
        )
        for name, m in together["classes"].items()
    ]
    tables.append(write_table(["class, all pixels together", *SCORES.values(), "Mpx"], rows))

    if several:  # the confusion matrix as shares of each true class
        rows = [
            (name, *(f"{count / sum(counts):.1%}" if sum(counts) else "-" for count in counts))
            for name, counts in zip(classes, together["confusion"], strict=True)
        ]
        tables.append(write_table(["truth, of which predicted as", *classes], rows))
    if metrics.get("auxiliary"):
        shown = ("iou", "f1", "precision", "recall")
        rows = [
            (name, source, *(_figure(scores[key]) for key in shown))
            for name, found in metrics["auxiliary"].items()
            for source, scores in found.items()
        ]
        tables.append(write_table(["auxiliary channel, at 0.5", "source", "IoU", "F1", "precision", "recall"], rows))
    if metrics.get("losses"):
        losses = [(f"`{name}`", _figure(value, 4)) for name, value in metrics["losses"].items()]
        losses += [("weighted sum", _figure(metrics["loss"], 4))] if metrics.get("loss") else []
        tables.append(write_table(["validation loss", "mean"], losses))
    return "\n\n".join(["## Figures", caution, headline, *tables])


def _training(recipe: Recipe) -> str:
    steps = ", ".join(
        f"`{step.step}`" + (f" (in {step.probability:.0%})" if step.probability < 1 else "") for step in recipe.augment
    )
    auxiliary = {"auxiliary": asdict(recipe.auxiliary)} if recipe.network.auxiliary else {}
    return (
        f"## Training\n\nAugmentation: {steps or 'none'}.\n\n"
        f"```toml\n{recipe_text({**auxiliary, 'loss': recipe.loss, 'fit': asdict(recipe.fit)})}```\n\n"
        "The whole recipe is in `recipe.json`, every validation in `history.csv`."
    )


def _limits(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    sources = metrics.get("sources") or {}
    mpx = sum(m["pixels"] for m in sources.values()) / 1e6
    where = f"{mpx:.2f} Mpx of {', '.join(sources)}" if sources else "nothing"
    classes = (metrics.get("all") or {}).get("classes", {})
    absent = [name for name, m in classes.items() if not m["pixels"]]
    lines = [
        f"Measured on {where}: the quality elsewhere is not known.",
        f"Made for {recipe.gsd_m:g} m per pixel; geoseg resamples other imagery, and warns if it is too coarse.",
        f"Needs the bands {', '.join(recipe.network.bands)}, in this order.",
        *([f"Classes without any validation pixel: {', '.join(absent)}."] if absent else []),
        "The probabilities are not calibrated.",
    ]
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _mpx(pixels: int) -> str:
    return f"{pixels / 1e6:.2f}"
