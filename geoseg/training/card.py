"""The model card of a training run, in Markdown: what the recipe and the figures say, and nothing else."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg._version import __version__
from geoseg.io.aside import write_text
from geoseg.io.tables import write_table
from geoseg.training.recipe import Recipe, Source

if TYPE_CHECKING:
    from geoseg.networks.facts import NetworkFacts

__all__ = ["CARD", "write_card"]

CARD = "model-card.md"
"""Name of the file."""

_PICTURES = {
    "curves.png": "Losses, IoU and learning rate over the steps",
    "predictions.png": "Validation chips: image, truth, prediction, and where they differ",
}


def write_card(
    folder: Path, recipe: Recipe, metrics: Mapping[str, Any], *, bundle: Path, facts: "NetworkFacts | None" = None
) -> Path:
    """Write the card beside the bundle; the pictures that lie there too are linked.

    Args:
        folder: where `model-card.md` goes.
        recipe: what was trained.
        metrics: what `metrics.json` holds: `Scores.figures`, and `step`, `steps`, `minutes`, `loss`, `losses` where
            they are known.
        bundle: the weights, already written.
        facts: cost and reach of the network.

    Returns:
        The card's path.
    """
    several = len(recipe.network.classes) > 2
    results = ["probability.tif", "mask.tif", *(["classes.tif"] if several else []), "buildings.gpkg"]
    use = (
        f"## How to run it\n\n```sh\ngeoseg run scene.tif --model {bundle.name}\n```\n\n"
        f"Results: {', '.join(f'`{name}`' for name in results)}. "
        "Scores on areas of your own: `geoseg evaluate` with the same `--model`."
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
    path = folder / CARD
    write_text(path, "\n\n".join(sections) + "\n")
    return path


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
        ("chips", f"at most {recipe.chip_px} px, {recipe.halo_px} px of them context on every side"),
        ("file", f"`{bundle.name}`, {bundle.stat().st_size / 1e6:.1f} MB"),
        ("started from", start),
        ("trained", ", ".join(trained)),
        ("terms of the weights", recipe.license or "the recipe names none"),
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
            notes.append(f"Labels of {source.name} are incomplete: what is marked is true, the rest may hold more.")
    terms = "The recipe does not carry the terms of imagery and labels: see where they come from before passing on."
    return "\n\n".join(["## Data", write_table(["source", "share of the crops", "in the recipe"], rows), *notes, terms])


def _figures(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    """Return the tables of sources and classes, of several classes the confusion matrix, and the losses."""
    if not metrics.get("sources"):
        return "## Figures\n\nNothing was kept for validation: how good this network is has not been measured."
    classes, together = recipe.network.classes, metrics["all"]
    several = len(classes) > 2
    caution = (
        "Pixels of the validation parts. The weights were chosen by them, so they flatter a little: "
        "`geoseg evaluate` on areas that had no part in it gives the honest figure."
    )
    headline = f"{'mean IoU' if several else 'IoU'}, mean over the sources: **{_figure(metrics['headline'])}**."

    heads = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"} if not several else {}
    heads |= {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    of_sources = dict(metrics["sources"])
    if len(of_sources) > 1:
        of_sources["all pixels together"] = together
    rows = [(name, *(_figure(m[key]) for key in heads), _mpx(m["pixels"])) for name, m in of_sources.items()]
    tables = [write_table(["source", *heads.values(), "Mpx"], rows)]

    heads = {"iou": "IoU", "dice": "Dice (F1)", "precision": "precision", "recall": "recall"}
    rows = [
        (
            name + (" (not in the mean)" if name in recipe.fit.unscored else ""),
            *(_figure(m[key]) for key in heads),
            _mpx(m["pixels"]),
        )
        for name, m in together["classes"].items()
    ]
    tables.append(write_table(["class, all pixels together", *heads.values(), "Mpx"], rows))

    if several:  # the confusion matrix as shares of each true class
        rows = [
            (name, *(f"{count / sum(counts):.1%}" if sum(counts) else "-" for count in counts))
            for name, counts in zip(classes, together["confusion"], strict=True)
        ]
        tables.append(write_table(["truth, of which predicted as", *classes], rows))
    if metrics.get("losses"):
        losses = [(f"`{name}`", _figure(value, 4)) for name, value in metrics["losses"].items()]
        losses += [("weighted sum", _figure(metrics["loss"], 4))] if metrics.get("loss") else []
        tables.append(write_table(["validation loss", "mean"], losses))
    return "\n\n".join(["## Figures", caution, headline, *tables])


def _training(recipe: Recipe) -> str:
    losses = "\n".join(f"{name} = {_toml(entry)}" for name, entry in recipe.loss.items())
    fit = "\n".join(f"{f.name} = {_toml(getattr(recipe.fit, f.name))}" for f in fields(recipe.fit))
    steps = ", ".join(
        f"`{step.step}`" + (f" (in {step.probability:.0%})" if step.probability < 1 else "") for step in recipe.augment
    )
    return (
        f"## Training\n\nAugmentation: {steps or 'none'}.\n\n```toml\n[loss]\n{losses}\n\n[fit]\n{fit}\n```\n\n"
        "The whole recipe is in `recipe.json`, every validation in `history.csv`."
    )


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _limits(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    sources = metrics.get("sources") or {}
    mpx = sum(m["pixels"] for m in sources.values()) / 1e6
    where = f"{mpx:.2f} Mpx of {', '.join(sources)}" if sources else "nothing"
    classes = (metrics.get("all") or {}).get("classes", {})
    absent = [name for name, m in classes.items() if not m["pixels"]]
    lines = [
        f"Measured on {where}: how good it is elsewhere is not known.",
        f"Made for {recipe.gsd_m:g} m per pixel; geoseg resamples other imagery, and warns where it is too coarse.",
        f"Wants the bands {', '.join(recipe.network.bands)}, in this order.",
        *([f"No truth of {', '.join(absent)} was among the validation pixels."] if absent else []),
        "The probabilities are as the network gives them; nothing calibrates them.",
    ]
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def _mpx(pixels: int) -> str:
    return f"{pixels / 1e6:.2f}"
