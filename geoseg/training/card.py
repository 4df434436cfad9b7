"""The model card of a training run, in Markdown: what the recipe and the figures say, and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg._version import __version__
from geoseg.io.aside import write_text
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
    sections = [
        _head(recipe, metrics, bundle, facts),
        _use(recipe, bundle),
        _data(recipe),
        _figures(recipe, metrics),
        _training(recipe),
        *_pictures(folder),
        _limits(recipe, metrics),
    ]
    path = folder / CARD
    write_text(path, "\n\n".join(sections) + "\n")
    return path


def _head(recipe: Recipe, metrics: Mapping[str, Any], bundle: Path, facts: "NetworkFacts | None") -> str:
    network = recipe.network
    size = f"{bundle.stat().st_size / 1e6:.1f} MB"
    rows = [
        ("network", f"`{network.name}`" + (f" on `{network.encoder}`" if network.encoder else "") + _options(recipe)),
        *_cost(facts),
        ("input", f"{', '.join(network.bands)}; {recipe.gsd_m:g} m per pixel; {network.pixel_max:g} counts as 1"),
        ("output", _output(recipe)),
        ("threshold", _threshold(recipe, metrics)),
        ("smallest footprint", f"{recipe.min_area_m2:g} m²"),
        ("chips", f"at most {recipe.chip_px} px, {recipe.halo_px} px of them context on every side"),
        ("file", f"`{bundle.name}`, {size}"),
        ("started from", _start(recipe)),
        ("trained", _trained(metrics)),
        ("terms of the weights", recipe.licence or "the recipe names none"),
    ]
    said = [recipe.description] if recipe.description else []
    return "\n\n".join([f"# Model card: `{recipe.name}`, version {recipe.version}", *said, _table(["", ""], rows)])


def _options(recipe: Recipe) -> str:
    listed = ", ".join(f"`{key} = {value!r}`" for key, value in recipe.network.options.items())
    return f", {listed}" if listed else ""


def _cost(facts: "NetworkFacts | None") -> list[tuple[str, str]]:
    if facts is None:
        return []
    return [
        ("cost", f"{facts.parameters / 1e6:.2f} M parameters, {facts.gflop_per_mpx:.0f} GFLOP per Mpx"),
        ("a pixel depends on", _reach(facts)),
    ]


def _reach(facts: "NetworkFacts") -> str:
    if facts.receptive_px is not None:
        return f"pixels up to {facts.receptive_px} px away"
    return "all of its chip" + (f", beyond {facts.local_px} px through averages alone" if facts.local_px else "")


def _output(recipe: Recipe) -> str:
    classes, target = recipe.network.classes, recipe.network.target_class
    if len(classes) == 1:
        return f"one probability per pixel: {target} or not"
    return f"one probability per pixel for each of {', '.join(classes)}; footprints are of the class {target}"


def _threshold(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    best = metrics.get("best_threshold")
    if len(recipe.network.classes) > 2:
        return f"{recipe.threshold:g} for footprints; the class raster shows the likeliest class"
    return f"{recipe.threshold:g}" + ("" if best is None else f"; {best:g} is best on the validation pixels")


def _start(recipe: Recipe) -> str:
    network = recipe.network
    if network.start_from:
        return f"the weights of `{network.start_from}`"
    return f"encoder weights `{network.encoder_weights}`" if network.encoder_weights else "random weights"


def _trained(metrics: Mapping[str, Any]) -> str:
    facts = [
        f"{metrics['steps']} steps" if "steps" in metrics else "",
        f"{metrics['minutes']:.0f} minutes" if "minutes" in metrics else "",
        f"weights of step {metrics['step']}" if "step" in metrics else "",
        f"geoseg {__version__}",
    ]
    return ", ".join(fact for fact in facts if fact)


def _use(recipe: Recipe, bundle: Path) -> str:
    several = len(recipe.network.classes) > 2
    results = "`probability.tif`, `mask.tif`, " + ("`classes.tif`, " if several else "") + "`buildings.gpkg`"
    return (
        f"## How to run it\n\n```sh\ngeoseg run scene.tif --model {bundle.name}\n```\n\n"
        f"Results: {results}. Scores on areas of your own: `geoseg evaluate` with the same `--model`."
    )


def _data(recipe: Recipe) -> str:
    total = sum(source.weight for source in recipe.sources) or 1.0
    rows = [(source.name, f"{source.weight / total:.0%}", _said(source)) for source in recipe.sources]
    notes = [
        f"Labels of {source.name} are incomplete: what is marked is true, the rest may hold more."
        for source in recipe.sources
        if not source.complete
    ]
    terms = "The recipe does not carry the terms of imagery and labels: see where they come from before passing on."
    return "\n\n".join(["## Data", _table(["source", "share of the crops", "in the recipe"], rows), *notes, terms])


def _said(source: Source) -> str:
    """Return what a source says besides its name and weight, defaults left out."""
    told = [f for f in fields(Source) if f.name not in ("name", "weight") and getattr(source, f.name) != _default(f)]
    return ", ".join(f"`{f.name} = {_plain(getattr(source, f.name))}`" for f in told)


def _default(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _plain(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _figures(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    if not metrics.get("sources"):
        return "## Figures\n\nNothing was kept for validation: how good this network is has not been measured."
    caution = (
        "Pixels of the validation parts. The weights were chosen by them, so they flatter a little: "
        "`geoseg evaluate` on areas that had no part in it gives the honest figure."
    )
    kind = "IoU" if len(recipe.network.classes) <= 2 else "mean IoU"
    headline = f"{kind}, mean over the sources: **{_figure(metrics['headline'])}**."
    parts = ["## Figures", caution, headline, _by_source(recipe, metrics), _by_class(recipe, metrics)]
    parts += [_confusion(recipe, metrics["all"])] if len(recipe.network.classes) > 2 else []
    return "\n\n".join(parts + ([_losses(metrics)] if metrics.get("losses") else []))


def _by_source(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    """Return the table of sources: the target's figures, or of several classes the means over them."""
    target = () if len(recipe.network.classes) > 2 else ("iou", "dice", "precision", "recall")
    keys = (*target, "mean_iou", "pixel_accuracy")
    heads = {"iou": "IoU", "dice": "Dice", "mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    rows = [(name, *(_figure(m[key]) for key in keys), _mpx(m["pixels"])) for name, m in metrics["sources"].items()]
    if len(rows) > 1:
        together = metrics["all"]
        rows.append(("all pixels together", *(_figure(together[k]) for k in keys), _mpx(together["pixels"])))
    return _table(["source", *(heads.get(key, key) for key in keys), "Mpx"], rows)


def _by_class(recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    unscored = recipe.fit.unscored
    rows = [
        (
            name + (" (not in the mean)" if name in unscored else ""),
            *(_figure(m[key]) for key in ("iou", "dice", "precision", "recall")),
            _mpx(m["pixels"]),
        )
        for name, m in metrics["all"]["classes"].items()
    ]
    return _table(["class, all pixels together", "IoU", "Dice (F1)", "precision", "recall", "Mpx"], rows)


def _confusion(recipe: Recipe, together: Mapping[str, Any]) -> str:
    """Return the confusion matrix as shares of each true class."""
    names = recipe.network.classes
    rows = [
        (name, *(f"{count / sum(counts):.1%}" if sum(counts) else "-" for count in counts))
        for name, counts in zip(names, together["confusion"], strict=True)
    ]
    return _table(["truth, of which predicted as", *names], rows)


def _losses(metrics: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", _figure(value, 4)) for name, value in metrics["losses"].items()]
    whole = metrics.get("loss")
    return _table(["validation loss", "mean"], rows + ([("weighted sum", _figure(whole, 4))] if whole else []))


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


def _pictures(folder: Path) -> list[str]:
    there = [f"![{text}]({name})" for name, text in _PICTURES.items() if (folder / name).is_file()]
    return ["\n\n".join(["## Pictures", *there])] if there else []


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


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
