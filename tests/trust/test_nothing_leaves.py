"""geoseg talks to the scene's own server and to nobody else, and nobody else can talk to it.

Linux namespaces give each command a network of its own (`watch.py`), and a home folder that is empty before.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

WATCH = Path(__file__).with_name("watch.py")
SERVER = "10.9.8.7:8000"
GEOSEG = (sys.executable, "-m", "geoseg")
CACHES = {"geoseg", "matplotlib"}
"""What may lie in ~/.cache."""

RECIPE = """
name = "sample"
gsd_m = 0.3
chip_px = 96
halo_px = 16
[network]
name = "unet"
encoder = "mobilenet_v2"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
options = { encoder_depth = 3, decoder_channels = [32, 16, 8] }
[loss]
bce = 1.0
[[sources]]
name = "sample"
images = "scene.tif"
labels = "buildings.gpkg"
validate_east = 0.2
[fit]
batch = 2
crop_px = 64
window_px = 80
steps = 2
validate_every = 2
learning_rate = 5e-3
precision = "32-true"
"""


@cache
def unshare() -> tuple[str, ...]:
    """The command that gives a program a network of its own; skip where that is not allowed."""
    own = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ("unshare", *own, "--net")
    tried = [shutil.which("unshare"), shutil.which("ip")]
    is_there = all(tried) and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    if not is_there and os.environ.get("GEOSEG_REQUIRE_NAMESPACES"):
        pytest.fail("GEOSEG_REQUIRE_NAMESPACES is set, and `unshare --net` or `ip` (iproute2) does not work here")
    if not is_there:
        pytest.skip("needs Linux, `ip` (iproute2) and the right to make a network of one's own (unshare --net)")
    return command


@pytest.fixture
def watched(tmp_path: Path, repository: Path) -> Callable[..., dict[str, Any]]:
    """Run geoseg in a network and a home folder of its own; return what was seen."""
    command = unshare()

    def run(*args: str, network: str = "online", served: str = "-", code: int = 0) -> dict[str, Any]:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        ours = ("CI", "GEOSEG_CACHE_DIR", "MPLCONFIGDIR", "ORT_DISABLE_TELEMETRY")  # OpenVINO reports nothing from a CI
        environment = {
            key: value for key, value in os.environ.items() if key not in ours and not key.startswith("XDG_")
        }
        environment |= {"HOME": str(home), "PYTHONPATH": str(repository), "NO_PROXY": "*"}
        report = tmp_path / "report.json"
        subprocess.run(
            [*command, sys.executable, str(WATCH), str(report), network, served, *GEOSEG, *args],
            cwd=tmp_path,
            env=environment,
            check=True,
        )
        seen = json.loads(report.read_text())
        assert seen["returncode"] == code, seen["stderr"]
        seen["home"] = sorted(path.name for path in home.iterdir())
        seen["caches"] = sorted(path.name for path in home.glob(".cache/*"))
        return seen

    return run


def check_alone(seen: dict[str, Any], *, server: str = "") -> None:
    """Hold that nothing went anywhere but to the server, and that no other could connect."""
    assert seen["sent"] == []
    host = server.partition(":")[0] or "no server"  # both ends of its connections, as it is in the same network
    assert [end for end in seen["listening"] if end != f"tcp {server}"] == []
    assert [end for end in seen["connected"] if not end.startswith(f"tcp {host}:")] == []
    assert seen["home"] in ([], [".cache"])
    assert set(seen["caches"]) <= CACHES
    assert "Warning" not in seen["stderr"]


def test_a_run_with_worker_processes_talks_to_nobody(watched: Callable[..., dict[str, Any]], repository: Path) -> None:
    check_alone(watched("run", str(repository / "sample_data/scene.tif"), "--out", "out", "--workers", "1"))


@pytest.mark.slow
def test_a_run_talks_to_nobody_but_the_server_of_its_scene(
    watched: Callable[..., dict[str, Any]], repository: Path
) -> None:
    seen = watched("run", f"http://{SERVER}/scene.tif", "--out", "out", served=str(repository / "sample_data"))
    assert f"tcp {SERVER}" in seen["connected"]
    check_alone(seen, server=SERVER)


@pytest.mark.slow
def test_a_run_offline_says_nothing_of_networks(watched: Callable[..., dict[str, Any]], repository: Path) -> None:
    check_alone(watched("run", str(repository / "sample_data/scene.tif"), "--out", "out", network="offline"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "train recipe.toml --data . --out out",
        "finetune scene.tif --labels buildings.gpkg --minutes 0.02 --out out",
        "evaluate scene.tif --labels buildings.gpkg",
        "models export buildings-30cm --to openvino --out a.xml",
        "info",
    ],
)
def test_a_command_talks_to_nobody(
    command: str, watched: Callable[..., dict[str, Any]], tmp_path: Path, repository: Path
) -> None:
    for name in ("scene.tif", "buildings.gpkg"):
        shutil.copy(repository / "sample_data" / name, tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    check_alone(watched(*command.split()))


@pytest.mark.slow
def test_onnx_runtime_reports_nothing(watched: Callable[..., dict[str, Any]], repository: Path) -> None:
    pytest.importorskip("onnxruntime")
    check_alone(watched("models", "export", "buildings-30cm", "--to", "onnx", "--out", "a.onnx"))
    scene = str(repository / "sample_data/scene.tif")
    seen = watched("run", scene, "--model", "a.onnx", "--device", "cuda", code=2)
    assert "ONNX Runtime" in seen["stderr"]  # asked for its devices: imported
    check_alone(seen)
