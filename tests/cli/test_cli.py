"""The command line as a person meets it: help, errors, exit codes, what goes to which stream."""

import ast
import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import rasterio
import typer
from typer.testing import CliRunner, Result

from geoseg import __version__, run
from geoseg.cli import app, main
from geoseg.cli.app import ORDER, Commands
from geoseg.errors import ClusterError, GeosegError, UnfinishedError, UsageError

HEAVY = ("torch", "torchgeo", "lightning", "geopandas", "rasterio", "numpy", "dask", "openvino", "optuna")

Run = Callable[..., tuple[int, list[str], str]]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = (
        "import sys\nimport typer\nfrom typer.testing import CliRunner\nfrom geoseg.cli import app\n"
        "def show(command, *path):\n"
        "    result = CliRunner().invoke(app, [*path, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage: ' in result.output, result.output\n"
        "    for name, inner in getattr(command, 'commands', {}).items():\n"
        "        show(inner, *path, name)\n"
        "show(typer.main.get_command(app))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands_in_the_declared_order_and_others_last() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    names = group.list_commands(typer.Context(group))
    assert tuple(names) == ORDER
    listed = invoke("--help").output.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in listed if line[:3].strip()] == names
    other = Commands(name="geoseg", commands={name: group.commands[name] for name in sorted(names)} | {"a": group})
    assert other.list_commands(typer.Context(other)) == [*ORDER, "a"]


def test_version_is_printed() -> None:
    assert invoke("--version").output.strip() == f"geoseg {__version__}"


def test_a_run_prints_the_paths_on_stdout_and_the_rest_on_stderr(scene: Path, bright: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoseg", "run", scene, "--model", bright]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    rasters, footprints = ["probability.tif", "mask.tif"], ["buildings.gpkg", "buildings.parquet"]
    with_styles = [name for raster in rasters for name in (raster, raster.replace(".tif", ".qml"))]
    assert [p.name for p in paths] == [*with_styles, *footprints, "project.qgz", "index.html", "item.json", "run.json"]
    assert all((tmp_path / p).is_file() and p.parent.name == "scene_geoseg" for p in paths)
    assert "3 buildings on 0.0 Mpx" in done.stderr
    assert "Warning" not in done.stderr


BAD_RUNS = {
    "missing file": (["nowhere.tif"], "no file"),
    "not a raster": (["README.md"], "cannot be opened as a raster"),
    "unknown model": (["sample_data/scene.tif", "--model", "roofs-1m"], "buildings-30cm"),
    "bad bands": (["sample_data/scene.tif", "--bands", "1,2,x"], "--bands 1,2,x"),
    "missing band": (["sample_data/scene.tif", "--bands", "1,2,9"], "bands 1 to 3"),
    "two bands for three": (["sample_data/scene.tif", "--bands", "1,2"], "wants 3"),
    "bad CRS": (["sample_data/scene.tif", "--crs", "EPSG:moon"], "--crs EPSG:moon is not a coordinate"),
    "no such CRS": (["sample_data/scene.tif", "--crs", "EPSG:99999"], "--crs EPSG:99999 is not a coordinate"),
    "empty CRS": (["sample_data/scene.tif", "--crs", ""], "--crs is empty"),
    "bad CRS of a mosaic": (
        ["sample_data/scene.tif", "--mosaic", "first", "--target-crs", "foo"],
        "--target-crs foo is not a coordinate",
    ),
    "filter of no AOI": (["sample_data/scene.tif", "--aoi-where", "x=1"], "features of --aoi, which is not given"),
    "missing AOI": (["sample_data/scene.tif", "--aoi", "aoi.gpkg"], "no AOI file"),
    "bad threshold": (
        ["sample_data/scene.tif", "--threshold", "50"],
        "50.0 is not a number above 0 and below 1",
    ),
    "threshold of nothing": (
        ["sample_data/scene.tif", "--threshold", "0"],
        "--threshold 0.0 is not a number above 0 and below 1",
    ),
    "no threads": (["sample_data/scene.tif", "--threads", "0"], "--threads 0 is below 1"),
    "band 0": (["sample_data/scene.tif", "--bands", "0"], "--bands 0 is not a list of band numbers, which count"),
    "no workers": (["sample_data/scene.tif", "--workers", "0"], "--workers 0 is below 1"),
    "no block": (["sample_data/scene.tif", "--block-px", "0"], "--block-px 0 is below 1"),
    "bundle that is none": (["sample_data/scene.tif", "--model", "LICENSE"], "safetensors"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_bad_input_is_explained_in_one_line(name: str, geoseg: Run, repository: Path, tmp_path: Path) -> None:
    args, words = BAD_RUNS[name]
    args = [str(repository / a) if a and (repository / a).exists() else a for a in args]
    code, out, err = geoseg("run", *args, "--out", tmp_path / "out")
    assert (code, out) == (2, [])
    assert err.splitlines()[-1].startswith("Error: ")
    assert words in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


BAD_COMMANDS = {
    "run --no-such-option a.tif": "--no-such-option",
    "run a.tif --mosaic best": "--mosaic",
    "train buildings-30cm --set fit.steps": "--set fit.steps is not key=value",
    "train roofs": "buildings-30cm",
    "data show roofs": "buildings-30cm",
    "search buildings-30cm --vary fit.batch": "--vary fit.batch is not a key and values",
    "search buildings-30cm": "Nothing is varied",
    "search buildings-30cm --vary fit.batch=4,8 --trials 0": "--trials 0 is not a search",
    "crossval buildings-30cm --folds 1": "--folds 1 is not a cross-validation",
    "finetune a.tif -l t.gpkg --code 255": "--code 255 is not a code",
    "finetune a.tif -l t.gpkg --minutes 0": "--minutes",
    "finetune a.tif -l t.gpkg --seed -1": "--seed",
    "evaluate a.tif -l t.tif --mask-code 255": "--mask-code 255 is not a code",
    "evaluate a.tif -l t.tif --threads 0": "--threads 0 is below 1",
    "evaluate a.tif -l t.tif --threshold 1": "--threshold 1.0 is not a number above 0 and below 1",
    "evaluate a.tif -l t.tif --aoi a.gpkg --area b.gpkg": "--area is the old name of --aoi",
    "evaluate a.tif -l t.tif --aoi-where x=1": "--aoi",
    "models show roofs-1m": "buildings-30cm",
    "models export buildings-30cm --to onnx --weights f16": "--weights f16 is for",
    "status .": "There is no run in",
}


@pytest.mark.parametrize("command", BAD_COMMANDS)
def test_what_makes_no_sense_is_refused_with_exit_code_2(
    command: str, geoseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = geoseg(*command.split())
    assert (code, out) == (2, [])
    assert BAD_COMMANDS[command] in err
    assert list(tmp_path.iterdir()) == []


def test_what_is_misspelt_is_said_before_torch_is_imported() -> None:
    script = (
        "import sys\nfrom geoseg.cli import main\n"
        "for args in (['train', 'roofs'], ['train', 'buildings-30cm', '--set', 'a'], ['data', 'show', 'roofs'],\n"
        "             ['crossval', 'buildings-30cm', '--set', 'a'], ['search', 'buildings-30cm', '--vary', 'a'],\n"
        "             ['finetune', 'a.tif', '-l', 't', '--set', 'a'], ['evaluate', '-l', 't', '--code', 'a']):\n"
        "    sys.argv = ['geoseg', *args]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert end.code == 2, args\n"
        "    assert 'torch' not in sys.modules, args\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_GDAL_prints_by_itself_does_not_reach_the_terminal(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8", "crs": "EPSG:32630"}
    place = rasterio.Affine(0.3, 0, 500_000, 0, -0.3, 600_000)
    with rasterio.open(tmp_path / "a.tif", "w", transform=place, **profile) as file:
        file.write(np.ones((1, 8, 8), "uint8"))
    content = (tmp_path / "a.tif").read_bytes()
    sizes = struct.pack("<HH", 279, 4)  # of strips; without them GDAL computes them, and says so
    assert content.count(sizes) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(sizes, struct.pack("<HH", 280, 4)))
    read = f"import rasterio\nfile = rasterio.open({str(tmp_path / 'a.tif')!r})\nfile.read()\n"
    start = (
        "import sys\nfrom geoseg.cli import main\nsys.argv = ['geoseg', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
    )
    quiet = [sys.executable, "-W", "ignore", "-c"]
    env = {name: value for name, value in os.environ.items() if name != "CPL_LOG"}  # which other tests may have set
    plain, ours = (
        subprocess.run([*quiet, text], capture_output=True, text=True, check=True, env=env)
        for text in (read, start + read)
    )
    assert "StripByteCounts" in plain.stderr
    assert ours.stderr == ""


def fail(error: BaseException) -> Callable[..., None]:
    def run_inputs(*args: object, **options: object) -> None:
        raise error

    return run_inputs


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GeosegError("no good"), 2, "Error: no good"),
        (UnfinishedError("3 blocks are left"), 3, "Error: 3 blocks are left"),
        (ClusterError("no worker"), 3, "Error: no worker"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_the_exit_code_says_whether_the_same_command_goes_on(
    error: BaseException, code: int, said: str, geoseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_inputs", fail(error))
    found, out, err = geoseg("run", "a.tif")
    assert (found, out) == (code, [])
    assert err.startswith(said)


@pytest.mark.parametrize(
    "call",
    [
        lambda: __import__("rasterio").open("/nowhere.tif"),
        lambda: __import__("pyproj").CRS.from_epsg(1),
        lambda: __import__("pyogrio").read_info("/nowhere.gpkg"),
        lambda: __import__("rasterio")._err.CPLE_NotSupportedError(3, 6, "not supported"),
    ],
)
def test_an_error_of_GDAL_or_PROJ_that_nothing_expected_is_a_line_too(
    call: Callable[[], object], geoseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_inputs(*args: object, **options: object) -> None:
        error = call()
        if isinstance(error, Exception):
            raise error

    monkeypatch.setattr(run, "run_inputs", run_inputs)
    found, out, err = geoseg("run", "a.tif")
    assert (found, out) == (2, [])
    assert re.fullmatch(r"Error: (rasterio|pyproj|pyogrio) cannot work with this input: .*gdalinfo.*info.*\n", err)


def test_a_warning_of_a_library_is_a_line(
    geoseg: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run_inputs(*args: object, **options: object) -> None:
        warnings.simplefilter("always")
        warnings.warn_explicit("Ring\n is open", RuntimeWarning, "/a/site-packages/pyogrio/raw.py", 200)
        raise GeosegError("no good")

    monkeypatch.setattr(run, "run_inputs", run_inputs)
    assert geoseg("run", "a.tif")[2] == "Error: no good\n"
    assert caplog.messages == ["pyogrio: Ring is open"]


def test_a_message_is_one_line_of_printable_characters_however_long(
    geoseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "a.tif\r\n has \x1b[31m no bands: " + "1, " * 5000 + "expected three."
    monkeypatch.setattr(run, "run_inputs", fail(GeosegError(said)))
    err = geoseg("run", "a.tif")[2]
    assert re.fullmatch(r"Error: a\.tif has \ufffd\[31m no bands: (1, )+.*\[\.\.\.\].* expected three\.\n", err)
    assert len(err) < 2100


def test_an_error_of_geosegs_own_keeps_its_traceback(geoseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_inputs", fail(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        geoseg("run", "a.tif")


def test_an_interrupt_while_the_arguments_are_read_is_told_like_any_other(
    geoseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typer.core.TyperGroup, "make_context", fail(KeyboardInterrupt()))
    code, out, err = geoseg("run", "a.tif")
    assert (code, out) == (130, [])
    assert err.startswith("Interrupted.")


EARLY = """
import sys

class Stop:
    def find_spec(self, name, *_):
        if name == "geoseg.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stop())
from geoseg.__main__ import main
main()
"""

LOADING = """
import os, signal, sys, time
from geoseg.cli import main
from geoseg.run import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background ignore it

def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)

run.prepare_process = interrupted  # while another thread loads the network
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [EARLY, LOADING], ids=["while geoseg is imported", "while the network is loaded"])
def test_an_interrupt_shortly_after_the_start_is_one_line(script: str, scene: Path, tmp_path: Path) -> None:
    """A process that ended while a thread compiled the network was aborted by the C++ library."""
    command = [sys.executable, "-c", script, "run", str(scene), "--out", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("Interrupted.")
    assert len(done.stderr.splitlines()) == 1


ENDED = """
import os, signal, sys, time
from geoseg import run
from geoseg.cli import main

def run_inputs(*args, **options):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    finally:
        print("the run folder is let go", flush=True)

run.run_inputs = run_inputs
sys.argv = ["geoseg", "run", "a.tif"]
main()
"""
"""In a process of its own, as the signal would reach the threads of all that other tests have left there."""


def test_a_scheduler_of_jobs_ends_a_run_in_order() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "the run folder is let go\n", "")


@pytest.mark.parametrize(("failed", "code"), [({}, 0), ({"b.png": "b.png is empty. Give `bands`."}, 3)])
def test_batch_prints_its_folders_lists_what_failed_and_leaves_with_3_then(
    failed: dict[str, str], code: int, geoseg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run.BatchResult(["out/a"], ["out/c"], [], failed)
    monkeypatch.setattr(run, "run_inputs", lambda *args, **options: result)
    found, out, err = geoseg("run", "pictures", "--out", "out")
    assert (found, out) == (code, ["out/c", "out/a"])
    assert ("Failed: b.png: b.png is empty. Give --bands." in err) == bool(failed)


def test_batch_in_JSON_is_one_object_and_the_exit_code_stays(geoseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run.BatchResult(["out/a"], ["out/c"], ["d"], {"b.png": "b.png is empty."}, {"out/a": 2})
    monkeypatch.setattr(run, "run_inputs", lambda *args, **options: result)
    code, out, err = geoseg("run", "pictures", "--json")
    assert code == 3
    assert json.loads("\n".join(out)) == {
        "done": ["out/a"],
        "skipped": ["out/c"],
        "outside": ["d"],
        "failed": {"b.png": "b.png is empty."},
        "lost_blocks": {"out/a": 2},
    }
    assert "Failed: b.png: b.png is empty." in err


def test_gpu_that_is_not_there_is_refused(
    geoseg: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = geoseg(
        "run", repository / "sample_data" / "scene.tif", "--device", "cuda", "--out", tmp_path / "out"
    )
    assert (code, out) == (2, [])
    assert "--device cpu" in err
    assert list(tmp_path.iterdir()) == []


def test_info_names_versions_devices_and_models() -> None:
    facts = json.loads(invoke("info", "--json").output)
    assert facts["geoseg"] == __version__
    assert "cpu" in facts["devices"]
    assert "buildings-30cm" in facts["models"]
    text = invoke("info").output
    assert "buildings-30cm" in text
    assert f"torchgeo {facts['packages']['torchgeo']}" in text


def test_recipes_are_listed_and_shown_as_they_are_or_as_what_they_come_to(repository: Path) -> None:
    listed = [line.split()[0] for line in invoke("recipes", "list").output.splitlines()]
    assert listed == sorted(path.stem for path in (repository / "pipelines" / "recipes").glob("*.*ml"))
    file = repository / "pipelines" / "recipes" / "buildings-30cm.toml"
    assert invoke("recipes", "show", "buildings-30cm").output.strip() == file.read_text().strip()
    changed = json.loads(invoke("recipes", "show", "buildings-30cm", "--set", "fit.batch=3").output)
    resolved = json.loads(invoke("recipes", "show", "buildings-30cm", "--resolved").output)
    assert changed["fit"]["batch"] == 3
    assert changed == resolved | {"fit": resolved["fit"] | {"batch": 3}}


def one(number: int = 0, **changes: object) -> run.RunStatus:
    facts = {"state": "stopped", "blocks": 9, "done": 4, "failed": {f"b{number}": "no light"}} | changes
    return run.RunStatus(f"scene{number}", f"out/scene{number}", **facts)  # type: ignore[arg-type]


def test_status_says_what_is_done_failed_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = {"pid": 7, "host": "node1", "since": "noon"}
    working = one(state="working", eta_s=150.0, holder=holder, dashboard="http://127.0.0.1:1/")
    monkeypatch.setattr(run, "read_status", lambda location: [working])
    assert invoke("status", "out").output.splitlines() == [
        "scene0: working, 4 of 9 blocks done, 1 failed, 4 left, about 2 min left",
        "run folder: out/scene0",
        "client: process 7 on node1, since noon",
        "dashboard: http://127.0.0.1:1/",
        "failed: b0: no light",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (99, "99 s"), (180, "3 min"), (9000, "2.5 h")])
def test_status_tells_time_in_a_unit_that_fits(seconds: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read_status", lambda location: [one(eta_s=seconds)])
    assert f"about {said} left" in invoke("status", "out").output


def test_status_of_many_sums_up_and_lists_all_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = one(0, state="finished")
    many = [lacking, *(one(number) for number in range(1, 30)), one(30, state="finished", done=9, failed={})]
    monkeypatch.setattr(run, "read_status", lambda location: many)
    lines = invoke("status", "out").output.splitlines()
    assert lines[0] == "31 scenes: 2 finished, 29 stopped"
    assert lines[1].startswith("129 of 279 blocks done")
    assert len(lines) == 2 + 20 + 1
    assert lines[-1] == "and 10 more: --all lists them"
    every = invoke("status", "out", "--all").output.splitlines()
    assert [line.split(":")[0] for line in every[2:]] == [each.name for each in many[:30]]
    failed = {f"b{number}": "no light" for number in range(30)}
    monkeypatch.setattr(run, "read_status", lambda location: [one(failed=failed)])
    assert "and 10 more failed blocks: --all lists them" in invoke("status", "out").output
    assert invoke("status", "out", "--all").output.count("no light") == 30


def test_status_for_programs_is_the_same_in_JSON_and_CSV(monkeypatch: pytest.MonkeyPatch) -> None:
    done = one(0, state="finished", done=9, failed={}, buildings=1693, area_m2=105799.6, seconds=29.75)
    broken = run.RunStatus("a,b", "out/a,b", "failed", error='no "light"')
    other = replace(one(2), is_listed=False)
    monkeypatch.setattr(run, "read_status", lambda location: [other, done, broken])
    found = json.loads(invoke("status", "out", "--json").output)
    assert [each["scene"] for each in found] == ["scene2", "scene0", "a,b"]
    assert found[0] == other.to_dict()
    assert (found[0]["failed"], found[0]["failed_blocks"], found[0]["in_batch"]) == (1, {"b2": "no light"}, False)
    assert (found[1]["buildings"], found[1]["area_m2"], found[1]["seconds"]) == (1693, 105799.6, 29.75)
    rows = list(csv.DictReader(io.StringIO(invoke("status", "out", "--csv").output)))
    assert [row["scene"] for row in rows] == ["scene0", "a,b", "scene2"]
    assert rows[0] | {"scene": "", "url": ""} == {
        "scene": "",
        "url": "",
        "state": "finished",
        "buildings": "1693",
        "area_m2": "105799.6",
        "seconds": "29.75",
        "blocks": "9",
        "done": "9",
        "failed": "0",
        "left": "0",
        "eta_s": "",
        "error": "",
    }
    assert [row["error"] for row in rows[1:]] == ['no "light"', "no light"]
    refused = invoke("status", "out", "--csv", "--json")
    assert "--json and --csv are alternatives" in str(refused.exception)


@pytest.mark.parametrize(("typed", "completed"), [("geoseg st", ["status"]), ("geoseg run --outl", ["--outline"])])
def test_shells_complete_commands_and_options(typed: str, completed: list[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    env = os.environ | words | {"_GEOSEG_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'geoseg'; from geoseg.cli import main; main()"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == completed


@pytest.mark.parametrize("command", [(), ("run",), ("models", "show"), ("recipes",)])
def test_h_is_help(command: tuple[str, ...]) -> None:
    assert invoke(*command, "-h").output == invoke(*command, "--help").output


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`aoi_where` chooses features of `aoi`", "--aoi-where chooses features of --aoi"),
        ("give `workers=4`, or `overwrite=True`", "give --workers 4, or --overwrite"),
        ("`crs='EPSG:32633'`", "--crs EPSG:32633"),
        ("`set=fit.steps=9`", "--set fit.steps=9"),
        ("`label_settings=LabelSettings(elsewhere=True)`", "--no-buildings-here"),
        ("`label_settings=LabelSettings(column='NAME')`", "--column NAME"),
        ("`pip install x`, `unheard_of` and `scenes`", "`pip install x`, `unheard_of` and `scenes`"),
    ],
)
def test_arguments_in_messages_are_shown_as_flags(
    said: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(location: object) -> NoReturn:
        raise UsageError(said)

    monkeypatch.setattr(run, "read_status", fail)
    monkeypatch.setattr(sys, "argv", ["geoseg", "status", "out"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().err) == (2, f"Error: {shown}\n")


def test_the_library_names_arguments_and_no_flags(repository: Path) -> None:
    named = []
    for path in (repository / "geoseg").rglob("*.py"):
        if path.parent.name in ("cli", "testing"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in documentation:
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                text = "".join(part for part in texts if isinstance(part, str))
                own = re.sub(r"geoseg [a-z]+ [^\n`]*|dask scheduler --[a-z-]+|projsync --[a-z-]+", "", text)
                named += [(path.name, node.lineno, flag) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", own)]
    assert named == []
