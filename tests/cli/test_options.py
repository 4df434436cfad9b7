"""Every option of every command reaches its setting, and nothing else: a case for each, and none may be missing."""

import importlib
import inspect
import logging
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from geoseg.bundle import DEFAULT_MODEL
from geoseg.cli import app
from geoseg.training.search import Choice, Range


@dataclass(frozen=True)
class Command:
    """A command, the public call it makes, and what the call gets where no option is given.

    Attributes:
        given: The least that the command asks for.
        module: Home of the call.
        call: Its name.
        gets: Arguments and settings that are not the defaults of the call.
    """

    given: str
    module: str
    call: str
    gets: dict[str, Any]


RECIPE = {"recipe": Path("recipe.toml"), "overrides": {}}
COMMANDS = {
    "run": Command("a.tif", "geoseg.run", "run_inputs", {"inputs": ("a.tif",), "quiet": False}),
    "vectorize": Command("p.tif", "geoseg.run", "vectorize_raster", {"source": "p.tif"}),
    "evaluate": Command("-l t.tif", "geoseg.evaluate", "evaluate_scenes", {"paths": (), "labels": Path("t.tif")}),
    "merge": Command("out", "geoseg.run", "merge_results", {"location": "out"}),
    "review": Command("out", "geoseg.evaluate", "review_run", {"run": "out"}),
    "compare": Command(
        "out map.gpkg", "geoseg.evaluate", "compare_with_map", {"run": "out", "map_file": Path("map.gpkg")}
    ),
    "finetune": Command(
        "a.tif -l t.gpkg", "geoseg.training.finetune", "finetune", {"scenes": ("a.tif",), "labels": Path("t.gpkg")}
    ),
    "train": Command("recipe.toml", "geoseg.training", "train_recipe", RECIPE),
    "crossval": Command(
        "recipe.toml", "geoseg.training.crossval", "cross_validate", RECIPE | {"recipe": "recipe.toml"}
    ),
    "search": Command(
        "recipe.toml --vary fit.batch=4,8",
        "geoseg.training.search",
        "search_recipe",
        RECIPE | {"recipe": "recipe.toml", "space": {"fit.batch": Choice(("4", "8"))}},
    ),
    "data show": Command("recipe.toml", "geoseg.training.survey", "survey_data", RECIPE),
    "recipes show": Command(
        "recipe.toml", "geoseg.training.library", "show_recipe", RECIPE | {"recipe": "recipe.toml"}
    ),
    "models show": Command("", "geoseg.bundle", "load_bundle", {"model": DEFAULT_MODEL}),
    "models export": Command(
        "houses.safetensors --to pt2", "geoseg.export", "export_model", {"model": "houses.safetensors", "to": "pt2"}
    ),
    "status": Command("out", "geoseg.run", "read_status", {"location": "out"}),
    "report": Command("out", "geoseg.run", "write_report", {"location": "out"}),
}

LAID_OVER: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("over", "--with other --with short-run", {"over": ("other", "short-run")}),
    ("set_", "--set fit.batch=4 --set ' a.b =c=d '", {"overrides": {"fit.batch": "4", "a.b": "c=d "}}),
)
TRAINING: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *LAID_OVER,
    ("data", "--data d", {"data": Path("d")}),
    ("out", "--out o", {"out": Path("o")}),
    ("quiet", "--quiet", {"says": False}),
)
LABELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("labels", "--labels other.tif", {"labels": Path("other.tif")}),
    ("out", "--out o", {"out": Path("o")}),
    ("quiet", "--quiet", {"says": False}),
)

OUTLINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("threshold", "--threshold 0.25", {"threshold": 0.25}),
    ("min_area_m2", "--min-area-m2 7.5", {"min_area_m2": 7.5}),
    ("min_area_m2", "--min-area-m2 0", {"min_area_m2": 0.0}),
    ("fill_holes_m2", "--fill-holes-m2 0.5", {"fill_holes_m2": 0.5}),
    ("outline", "--outline simple", {"outline": "simple"}),
    ("tolerance_m", "--tolerance-m 2.5", {"tolerance_m": 2.5}),
    ("tolerance_m", "--tolerance-m 0", {"tolerance_m": 0.0}),
    ("split_depth", "--split-depth 0.25", {"split_depth": 0.25}),
)

CASES: dict[str, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    "run": (
        ("scene", "b.tif", {"inputs": ("a.tif", "b.tif")}),
        ("model", "--model m.onnx", {"model": "m.onnx"}),
        ("out", "--out s3://a/b", {"out": "s3://a/b"}),
        ("mosaic", "--mosaic mean", {"mosaic": "mean"}),
        ("target_crs", "--target-crs EPSG:2056 --mosaic first", {"target_crs": "EPSG:2056", "mosaic": "first"}),
        ("asset", "--asset visual", {"asset": "visual"}),
        ("aoi", "--aoi a.gpkg", {"aoi": Path("a.gpkg")}),
        ("aoi_where", "--aoi-where x=1 --aoi a.gpkg", {"aoi_where": "x=1", "aoi": Path("a.gpkg")}),
        *OUTLINES,
        ("bands", "--bands 3,2,1", {"bands": (3, 2, 1)}),
        ("crs", "--crs EPSG:32630", {"crs": "EPSG:32630"}),
        ("nodata", "--nodata -9999", {"nodata": -9999.0}),
        ("nodata", "--nodata 0", {"nodata": 0.0}),
        ("alpha", "--alpha", {"alpha": True}),
        ("alpha", "--no-alpha", {"alpha": False}),
        ("grid", "--grid scene", {"grid": "scene"}),
        ("blend", "--blend", {"blend": True}),
        ("device", "--device cuda", {"device": "cuda"}),
        ("precision", "--precision bf16", {"precision": "bf16"}),
        ("tta", "--tta d4", {"tta": "d4"}),
        ("threads", "--threads 3", {"threads": 3}),
        ("workers", "--workers 2", {"workers": 2}),
        ("scheduler", "--scheduler tcp://h:1", {"scheduler": "tcp://h:1"}),
        ("block_px", "--block-px 512", {"block_px": 512}),
        ("errors", "--errors nodata", {"errors": "nodata"}),
        ("formats", "--format parquet,' fgb'", {"formats": ("parquet", "fgb")}),
        ("also", "--also fgb", {"formats": ("gpkg", "parquet", "fgb")}),
        ("picture", "--picture", {"picture": True}),
        ("page", "--no-page", {"page": False}),
        ("overwrite", "--overwrite", {"overwrite": True}),
        ("quiet", "--quiet", {"quiet": True, "says": False}),
    ),
    "vectorize": (
        *OUTLINES,
        ("raster", "", {"source": "p.tif"}),
        ("out", "--out s3://a/b", {"out": "s3://a/b"}),
        ("band", "--band 2", {"band": 2}),
        ("full_scale", "--full-scale 255", {"full_scale": 255.0}),
        ("values", "--values 2,3", {"values": (2, 3)}),
        ("crs", "--crs EPSG:32630", {"crs": "EPSG:32630"}),
        ("formats", "--format parquet,' fgb'", {"formats": ("parquet", "fgb")}),
        ("also", "--also fgb", {"formats": ("gpkg", "parquet", "fgb")}),
        ("overwrite", "--overwrite", {"overwrite": True}),
        ("quiet", "--quiet", {"says": False}),
    ),
    "evaluate": (
        *LABELS,
        ("scene", "a.tif b.tif", {"paths": ("a.tif", "b.tif")}),
        ("model", "--model m.onnx", {"model": "m.onnx"}),
        ("mask", "--mask m.tif", {"mask": Path("m.tif")}),
        ("footprints", "--footprints f.gpkg", {"footprints": Path("f.gpkg")}),
        ("confidence", "--confidence p --footprints f.gpkg", {"confidence": "p", "footprints": Path("f.gpkg")}),
        (
            "codes",
            "--code 255=building --code ' #000000 = unknown'",
            {"label_settings.codes": (("255", "building"), ("#000000", "unknown"))},
        ),
        (
            "mask_codes",
            "--mask-code 1=building --mask m.tif",
            {"mask_codes": (("1", "building"),), "mask": Path("m.tif")},
        ),
        ("classes", "--classes land,road --mask m.tif", {"classes": ("land", "road"), "mask": Path("m.tif")}),
        ("target", "--target road --footprints f.gpkg", {"target": "road", "footprints": Path("f.gpkg")}),
        ("target_only", "--target-only", {"target_only": True}),
        ("unscored", "--unscored a --unscored b", {"unscored": ("a", "b")}),
        ("layer", "--layer houses", {"label_settings.layer": "houses"}),
        ("column", "--column kind", {"label_settings.column": "kind"}),
        ("instances", "--instances", {"label_settings.instances": True}),
        ("elsewhere", "--no-buildings-here", {"label_settings.elsewhere": True}),
        ("aoi", "--aoi a.gpkg", {"aoi": Path("a.gpkg")}),
        ("aoi_where", "--aoi-where x=1 --aoi a.gpkg", {"aoi_where": "x=1", "aoi": Path("a.gpkg")}),
        ("area", "--area a.gpkg", {"aoi": Path("a.gpkg")}),
        ("where", "--where x=1 --aoi a.gpkg", {"aoi_where": "x=1", "aoi": Path("a.gpkg")}),
        ("threshold", "--threshold 0.25", {"threshold": 0.25}),
        ("curve", "--curve", {"curve": True}),
        ("boundary_m", "--boundary-m 2.5", {"boundary_m": 2.5}),
        ("boundary_px", "--boundary-px 3", {"boundary_px": 3}),
        ("pixels_only", "--pixels-only", {"buildings": False}),
        ("crs", "--crs EPSG:32630", {"crs": "EPSG:32630"}),
        ("nodata", "--nodata -3.4e+38", {"nodata": -3.4e38}),
        ("alpha", "--alpha", {"alpha": True}),
        ("alpha", "--no-alpha", {"alpha": False}),
        ("no_pictures", "--no-pictures", {"pictures": False}),
        ("blend", "--blend", {"blend": True}),
        ("device", "--device mps", {"device": "mps"}),
        ("precision", "--precision bf16", {"precision": "bf16"}),
        ("tta", "--tta d4", {"tta": "d4"}),
        ("threads", "--threads 3", {"threads": 3}),
        ("overwrite", "--overwrite", {"overwrite": True}),
    ),
    "merge": (
        ("out", "--out o.fgb", {"out": Path("o.fgb")}),
        ("target_crs", "--target-crs EPSG:2056", {"target_crs": "EPSG:2056"}),
        ("overwrite", "--overwrite", {"overwrite": True}),
        ("quiet", "--quiet", {"says": False}),
    ),
    "review": (
        ("out", "--out o", {"out": Path("o")}),
        ("cell_m", "--cell-m 2.5", {"cell_m": 2.5}),
        ("most", "--most 7", {"most": 7}),
        ("sample", "--sample 50", {"sample": 50}),
        ("seed", "--seed 7", {"seed": 7}),
        ("overwrite", "--overwrite", {"overwrite": True}),
        ("quiet", "--quiet", {"says": False}),
    ),
    "compare": (
        ("out", "--out o", {"out": Path("o")}),
        ("layer", "--layer houses", {"layer": "houses"}),
        ("map_id", "--map-id name", {"map_id": "name"}),
        ("iou", "--iou 0.75", {"iou": 0.75}),
        ("shift", "--no-shift", {"shift": False}),
        ("overwrite", "--overwrite", {"overwrite": True}),
        ("quiet", "--quiet", {"says": False}),
    ),
    "finetune": (
        *LABELS,
        ("scene", "b.tif", {"scenes": ("a.tif", "b.tif")}),
        ("model", "--model m.safetensors", {"model": "m.safetensors"}),
        ("name", "--name mine", {"name": "mine"}),
        ("minutes", "--minutes 0.5", {"minutes": 0.5}),
        ("aoi", "--aoi a.gpkg", {"aoi": Path("a.gpkg")}),
        ("aoi_where", "--aoi-where x=1 --aoi a.gpkg", {"aoi_where": "x=1", "aoi": Path("a.gpkg")}),
        ("areas", "--areas a.gpkg", {"aoi": Path("a.gpkg")}),
        ("where", "--where x=1 --aoi a.gpkg", {"aoi_where": "x=1", "aoi": Path("a.gpkg")}),
        ("layer", "--layer houses", {"layer": "houses"}),
        ("column", "--column kind", {"column": "kind"}),
        ("instances", "--instances", {"instances": True}),
        ("elsewhere", "--no-buildings-here", {"elsewhere": True}),
        ("codes", "--code 255=building", {"codes": (("255", "building"),)}),
        ("nodata", "--nodata 255", {"nodata": 255.0}),
        ("alpha", "--alpha", {"alpha": True}),
        ("alpha", "--no-alpha", {"alpha": False}),
        ("seed", "--seed 7", {"seed": 7}),
        ("set_", "--set fit.batch=4", {"overrides": {"fit.batch": "4"}}),
    ),
    "train": TRAINING,
    "crossval": (*TRAINING, ("folds", "--folds 3", {"folds": 3})),
    "search": (
        *TRAINING,
        (
            "vary",
            "--vary fit.rate=1e-5..1e-2:log",
            {"space": {"fit.batch": Choice(("4", "8")), "fit.rate": Range(1e-5, 1e-2, log=True)}},
        ),
        (
            "space",
            "--space space.toml",
            {"space": {"fit.steps": Range(10, 20), "fit.batch": Choice(("4", "8"))}},
        ),
        ("trials", "--trials 7", {"trials": 7}),
        ("minutes_per_trial", "--minutes-per-trial 0.5", {"minutes": 0.5}),
        ("retrain", "--retrain", {"retrain": True}),
    ),
    "data show": TRAINING,
    "recipes show": (*LAID_OVER, ("resolved", "--resolved", {"resolved": True})),
    "models show": (("model", "houses.onnx", {"model": "houses.onnx"}),),
    "models export": (
        ("to", "--to onnx", {"to": "onnx"}),
        ("out", "--out o/", {"out": "o/"}),
        ("weights", "--weights f16", {"weights": "f16"}),
        ("overwrite", "--overwrite", {"overwrite": True}),
        ("quiet", "--quiet", {"says": False}),
    ),
    "status": (),
    "report": (("quiet", "--quiet", {"says": False}),),
}

NEEDED = {
    *((command, "recipe") for command in ("train", "crossval", "search", "data show", "recipes show")),
    *(("models export", "model"), ("status", "run"), ("merge", "batch"), ("review", "run"), ("report", "run")),
    *(("compare", "run"), ("compare", "map_file")),
}
"""Arguments that every case of their command gives."""

PRINTED = {
    ("run", "as_json"),
    ("status", "every"),
    ("status", "as_json"),
    ("status", "as_csv"),
    ("review", "answers"),
    ("info", "as_json"),
    ("models list", "as_json"),
    ("models show", "as_json"),
    ("models show", "stac"),
}
"""Options that change what is printed alone; tests of what is printed hold them (test_cli.py)."""

IN_PYTHON_ALONE = {("run", "chip_px"), ("run", "halo_px"), ("evaluate", "chip_px"), ("evaluate", "halo_px")}
"""Settings without an option."""

SHORT = {"model": "-m", "out": "-o", "labels": "-l", "folds": "-k", "trials": "-n", "quiet": "-q"}
CHOICES = {
    "device": {"auto", "cpu", "cuda", "mps"},
    "precision": {"auto", "f32", "bf16", "f16"},
    "tta": {"d4"},
    "grid": {"model", "scene"},
    "mosaic": {"first", "latest", "mean"},
    "errors": {"stop", "nodata"},
    "outline": {"raw", "simple", "regular"},
    "to": {"onnx", "openvino", "pt2", "tensorrt"},
    "weights": {"f32", "f16"},
}


def walk(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command by what a user types."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from walk(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


ALL = dict(walk(typer.main.get_command(app)))
PARAMS = {(name, param.name): param for name, command in ALL.items() for param in command.params}


def choices_of(command: str, name: str) -> set[str] | None:
    """Return the values that an option offers; None where any will do."""
    hint = inspect.signature(ALL[command].callback, eval_str=True).parameters[name].annotation
    kinds = [each for each in (hint, *get_args(hint)) for each in (each, *get_args(each))]
    return next((set(get_args(kind)) for kind in kinds if get_origin(kind) is Literal), None)


class ReachedError(Exception):
    """The command made its call."""


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with the fields of settings beside them, those of settings in settings by a dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(value) and name.endswith("settings"):
            inner = flat({each.name: getattr(value, each.name) for each in fields(value)})
            found |= inner if name == "settings" else {f"{name}.{key}": one for key, one in inner.items()}
        else:
            found[name] = tuple(value) if isinstance(value, list) else value
    return found


def call_of(command: str, args: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the public call of a command gets, and whether progress is told (`says`)."""
    seam = COMMANDS[command]
    home = importlib.import_module(seam.module)
    signature, calls = inspect.signature(getattr(home, seam.call)), []

    def record(*args: Any, **options: Any) -> None:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        says = {"says": logging.getLogger("geoseg.any").isEnabledFor(logging.INFO)}
        calls.append(flat(bound.arguments) | (says if (command, "quiet") in PARAMS else {}))
        raise ReachedError

    with monkeypatch.context() as patch:
        patch.setitem(vars(home), seam.call, record)
        result = CliRunner().invoke(app, [*command.split(), *shlex.split(seam.given), *args])
    assert isinstance(result.exception, ReachedError), f"{result.output}\n{result.exception!r}"
    return calls[0]


def defaults_of(command: str) -> dict[str, Any]:
    """Return the defaults of the call and of its settings, and what every call of the command gets."""
    seam = COMMANDS[command]
    call = getattr(importlib.import_module(seam.module), seam.call)
    parameters = inspect.signature(call, eval_str=True).parameters
    found = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    if "settings" in parameters:
        hint = parameters["settings"].annotation
        kind = next(each for each in (hint, *get_args(hint)) if is_dataclass(each))
        needed = {name: seam.gets[name] for name in ("labels", "space") if name in seam.gets}
        found["settings"] = kind(**needed)
    return flat(found) | ({"says": True} if (command, "quiet") in PARAMS else {}) | seam.gets


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("recipe.toml", "other.toml"):
        (tmp_path / name).touch()
    (tmp_path / "space.toml").write_text('"fit.steps" = {low = 10, high = 20}\n')


def test_every_option_has_a_case_here_or_prints_something() -> None:
    cases = {(command, name) for command, rows in CASES.items() for name, _, _ in rows}
    assert set(PARAMS) == cases | NEEDED | PRINTED


def test_every_setting_has_an_option_but_those_for_measurements() -> None:
    settings = {(command, name) for command in COMMANDS for name in defaults_of(command)}
    reached = {(command, name) for command, rows in CASES.items() for _, _, gets in rows for name in gets}
    given = {(command, name) for command, seam in COMMANDS.items() for name in seam.gets}
    assert settings - reached - given == IN_PYTHON_ALONE


@pytest.mark.parametrize("command", COMMANDS)
def test_without_options_a_command_asks_for_what_the_call_does_by_default(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call_of(command, [], monkeypatch) == defaults_of(command)


@pytest.mark.parametrize(
    ("command", "name", "typed", "gets"),
    [(command, *row) for command, rows in CASES.items() for row in rows],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_reaches_its_setting_and_no_other(
    command: str, name: str, typed: str, gets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    param, args = PARAMS[command, name], shlex.split(typed)
    for spelling in param.opts:
        own = [spelling if arg in param.opts else arg for arg in args]
        assert call_of(command, own, monkeypatch) == defaults_of(command) | gets


def test_common_options_have_their_short_names_in_every_command() -> None:
    for (command, name), param in PARAMS.items():
        if param.param_type_name == "option" and name in SHORT:
            assert SHORT[name] in param.opts, (command, name)


def test_every_choice_reaches_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {key: choices for key in PARAMS if (choices := choices_of(*key)) is not None}
    assert {name for _, name in offered} == CHOICES.keys()
    for (command, name), choices in offered.items():
        assert choices == CHOICES[name]
        for choice in choices:
            assert call_of(command, [PARAMS[command, name].opts[0], choice], monkeypatch)[name] == choice
