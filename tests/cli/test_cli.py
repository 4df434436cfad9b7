"""The command line as a person meets it: help, errors, exit codes, what goes to which stream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from geoseg import __version__, run
from geoseg.cli import app

HEAVY = ("torch", "torchgeo", "lightning", "geopandas", "rasterio", "numpy", "dask", "openvino")


def geoseg(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    command = [sys.executable, "-m", "geoseg", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.mark.parametrize("command", ["run", "train", "evaluate", "info", "models"])
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom geoseg.cli import app\n"
        "for command in ([], ['run'], ['train'], ['evaluate'], ['info'], ['models', 'export']):\n"
        "    assert CliRunner().invoke(app, [*command, '--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_printed() -> None:
    assert invoke("--version").output.strip() == f"geoseg {__version__}"


def test_run_prints_the_paths_on_stdout_and_the_rest_on_stderr(repository: Path, tmp_path: Path) -> None:
    done = geoseg("run", repository / "sample_data" / "scene.tif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    rasters, footprints = ["probability.tif", "mask.tif", "mask.qml"], ["buildings.gpkg", "buildings.parquet"]
    assert [p.name for p in paths] == [*rasters, *footprints, "run.json"]
    assert all((tmp_path / p).is_file() and p.parent.name == "scene_geoseg" for p in paths)
    assert "buildings on 1.0 Mpx" in done.stderr
    assert "Warning" not in done.stderr


def test_quiet_run_says_nothing_but_the_paths(repository: Path, tmp_path: Path) -> None:
    done = geoseg("run", repository / "sample_data" / "scene.tif", "--quiet", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 6
    assert done.stderr == ""


BAD_RUNS = {
    "missing file": (["nowhere.tif"], "no file"),
    "not a raster": (["README.md"], "cannot be opened as a raster"),
    "unknown model": (["sample_data/scene.tif", "--model", "roofs-1m"], "buildings-30cm"),
    "bad bands": (["sample_data/scene.tif", "--bands", "1,2,x"], "--bands 1,2,x"),
    "missing band": (["sample_data/scene.tif", "--bands", "1,2,9"], "bands 1 to 3"),
    "two bands for three": (["sample_data/scene.tif", "--bands", "1,2"], "wants 3"),
    "bad CRS": (["sample_data/scene.tif", "--crs", "EPSG:moon"], "EPSG:32630"),
    "missing AOI": (["sample_data/scene.tif", "--aoi", "aoi.gpkg"], "no AOI file"),
    "bad threshold": (["sample_data/scene.tif", "--threshold", "50"], "between 0 and 1"),
    "bundle that is none": (["sample_data/scene.tif", "--model", "LICENSE"], "safetensors"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_bad_input_is_explained_in_one_line(name: str, repository: Path, tmp_path: Path) -> None:
    args, words = BAD_RUNS[name]
    args = [str(repository / a) if (repository / a).exists() else a for a in args]
    done = geoseg("run", *args, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("failed", "code"), [({}, 0), ({"b.png": "b.png is empty"}, 3)])
def test_batch_prints_its_folders_lists_what_failed_and_leaves_with_3_then(
    failed: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def run_inputs(inputs: list[str], settings: run.RunSettings, *, quiet: bool) -> run.BatchResult:
        asked.update(inputs=inputs, out=settings.out, picture=settings.picture)
        return run.BatchResult(["out/a"], ["out/c"], [], failed)

    monkeypatch.setattr(run, "run_inputs", run_inputs)
    result = invoke("run", "pictures", "--picture", "--out", "out")
    assert result.exit_code == code
    assert asked == {"inputs": ["pictures"], "out": "out", "picture": True}
    assert result.stdout.splitlines() == ["out/c", "out/a"]
    assert ("Failed: b.png: b.png is empty" in result.stderr) == bool(failed)


def test_gpu_that_is_not_there_is_refused(repository: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    done = geoseg("run", repository / "sample_data" / "scene.tif", "--device", "cuda", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "--device cpu" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_info_names_versions_devices_and_models() -> None:
    result = invoke("info", "--json")
    facts = json.loads(result.output)
    assert facts["geoseg"] == __version__
    assert "cpu" in facts["devices"]
    assert "buildings-30cm" in facts["models"]
    text = invoke("info").output
    assert "buildings-30cm" in text
    assert "torchgeo" in text


def test_override_without_a_value_is_refused() -> None:
    done = geoseg("train", "buildings-30cm", "--set", "fit.steps")
    assert done.returncode == 2
    assert "key=value" in done.stderr


def test_unknown_recipe_names_the_known_ones() -> None:
    done = geoseg("train", "roofs")
    assert done.returncode == 2
    assert "buildings-30cm" in done.stderr
