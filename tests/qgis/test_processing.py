"""The plugin of pipelines/qgis in the real `qgis_process`, and how it calls geoseg."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import geopandas
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGINS, SAMPLE = REPOSITORY / "pipelines" / "qgis", REPOSITORY / "sample_data"
QGIS_PROCESS = "/usr/bin/qgis_process.bin"  # Debian's wrapper adds an option that only the desktop knows

sys.path.insert(0, str(PLUGINS))
from geoseg_qgis.command import CommandError, find_geoseg, own_environment, run_geoseg  # noqa: E402

FAKE = """#!{python}
import json, os, signal, sys, time
print("3,000 of 4,000 blocks done, about 2 s left", file=sys.stderr, flush=True)
if sys.argv[1] == "wait":
    signal.signal(signal.SIGINT, lambda *_: (print("let go", file=sys.stderr), sys.exit(130)))
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
if sys.argv[1] == "fail":
    sys.exit("Error: scene.tif is no raster. Give one.")
print(json.dumps([sys.argv[1:], sorted(os.environ)]))
"""


@pytest.fixture
def fake(tmp_path: Path) -> str:
    """A program that tells how it was called."""
    path = tmp_path / "geoseg"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_progress_log_and_results_come_back(fake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/usr/lib/qgis")
    monkeypatch.setenv("PROJ_DATA", "/usr/share/qgis/proj")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    said: list[str] = []
    shown: list[float] = []
    (printed,) = run_geoseg(fake, ["run", "a b.tif"], say=said.append, show=shown.append)
    args, names = json.loads(printed)
    assert args == ["run", "a b.tif"]
    assert {"PYTHONHOME", "PROJ_DATA"}.isdisjoint(names)
    assert "AWS_PROFILE" in names
    assert shown == [75.0]
    assert said == ["3,000 of 4,000 blocks done, about 2 s left"]
    assert own_environment({"GDAL_DATA": "x", "HOME": "y"}) == {"HOME": "y"}


def test_an_error_is_the_line_of_geoseg(fake: str) -> None:
    with pytest.raises(CommandError, match=r"^scene.tif is no raster. Give one.$"):
        run_geoseg(fake, ["fail"])


def test_cancel_stops_it_as_ctrl_c_does(fake: str) -> None:
    ready, said = threading.Event(), []

    def say(line: str) -> None:
        said.append(line)
        if line == "ready":
            ready.set()

    began = time.monotonic()
    with pytest.raises(CommandError, match="Finished blocks are kept"):
        run_geoseg(fake, ["wait"], say=say, is_canceled=ready.is_set)
    assert time.monotonic() - began < 20


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, fake: str) -> None:
    with pytest.raises(CommandError, match="There is no program /nowhere/geoseg"):
        find_geoseg("/nowhere/geoseg")
    monkeypatch.setenv("GEOSEG", fake)
    assert find_geoseg() == fake


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that runs `qgis_process` with the plugin, in a profile of its own."""
    if not Path(QGIS_PROCESS).exists():
        missing = f"there is no {QGIS_PROCESS}: apt-get install qgis"
        if os.environ.get("GEOSEG_REQUIRE_QGIS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    home = tmp_path_factory.mktemp("home")
    program = shutil.which("geoseg", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    env = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "QGIS_CUSTOM_CONFIG_PATH": str(home),
        "QGIS_PLUGINPATH": str(PLUGINS),
        "QT_QPA_PLATFORM": "offscreen",
        "GEOSEG": str(program),
        "GEOSEG_CACHE_DIR": os.environ.get("GEOSEG_CACHE_DIR", str(home / "cache")),
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [QGIS_PROCESS, *args]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)

    enabled = run("plugins", "enable", "geoseg_qgis")
    assert enabled.returncode == 0, enabled.stderr
    return run


def test_the_toolbox_has_the_algorithms(process: Any) -> None:
    listed = process("list").stdout
    for name in ("compare", "evaluate", "extractbuildings", "finetune"):
        assert f"geoseg:{name}\t" in listed


def test_buildings_are_extracted_within_an_area_and_compared_with_a_map(process: Any, tmp_path: Path) -> None:
    truth, out = geopandas.read_file(SAMPLE / "buildings.gpkg", layer="buildings"), tmp_path / "town"
    west, south, east, north = truth.total_bounds
    middle = geopandas.GeoSeries.from_wkt([f"POINT({(west + east) / 2} {(south + north) / 2})"], crs=truth.crs)
    middle.buffer(40).to_frame("geometry").to_file(tmp_path / "area.gpkg")
    image, area = f"--INPUT={SAMPLE / 'scene.tif'}", f"--AOI={tmp_path / 'area.gpkg'}"
    done = process("run", "geoseg:extractbuildings", image, area, f"--OUTPUT={out}", "--THRESHOLD=0.55")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"BUILDINGS:\t{out}/buildings.gpkg|layername=buildings" in done.stdout
    found = geopandas.read_parquet(out / "buildings.parquet")
    assert 5 < len(found) < len(truth)
    assert found.within(middle.buffer(45).iloc[0]).all()
    assert json.loads((out / "run.json").read_text())["threshold"] == 0.55
    (kept,) = tmp_path.glob("town_aoi_*.gpkg")
    before = (out / "run.json").read_bytes()
    again = process("run", "geoseg:extractbuildings", image, area, f"--OUTPUT={out}", "--THRESHOLD=0.55")
    assert again.returncode == 0, again.stderr + again.stdout
    assert (out / "run.json").read_bytes() == before
    assert [kept] == list(tmp_path.glob("town_aoi_*.gpkg"))

    mapped = f"--MAP={SAMPLE / 'buildings.gpkg'}"
    done = process("run", "geoseg:compare", f"--RUN={out}", mapped, f"--OUTPUT={tmp_path / 'compared'}")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"MISSING:\t{tmp_path}/compared/comparison.gpkg|layername=missing" in done.stdout


def test_what_geoseg_refuses_is_said_in_the_log(process: Any, tmp_path: Path) -> None:
    image, out = f"--INPUT={SAMPLE / 'scene.tif'}", tmp_path / "town"
    refused = process("run", "geoseg:extractbuildings", image, f"--OUTPUT={out}", "--MODEL=nonsense")
    assert "There is no model 'nonsense'" in refused.stdout + refused.stderr
    assert not out.exists()
