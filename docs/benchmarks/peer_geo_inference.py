"""geoseg beside geo-inference: the same scene, network, threshold, smallest area and CPUs, in one run.

    python docs/benchmarks/peer_geo_inference.py                        # the whole scene, 31 Mpx
    python docs/benchmarks/peer_geo_inference.py --scene-fraction 0.1   # a quick look

The scene is Accra (10 cm, drone), averaged to 0.3 m once beforehand, so that neither has to resample. geo-inference
gets an environment of its own and the network of the geoseg bundle as TorchScript (raw pixels in, one channel of
probability out). Its overlap is fixed at 50 % (Hann window) and its smallest polygon at 40 m2; geoseg gets the same
smallest area and keeps its own halo. Both masks and both sets of polygons are scored on Accra's test and val areas;
geo-inference's polygons of value 255 (its outline of no-data) are dropped first. Memory is that of all processes.
geo-inference runs twice: with the network traced, as its documentation asks, and frozen in channels-last order, which
is the best TorchScript does for it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from measure import Measured, measure
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject

from geoseg.bundle import DEFAULT_MODEL, Bundle, load_bundle
from geoseg.grid import Grid, Window
from geoseg.scene import Scene, open_scene

PEER = "geo-inference==3.2.4"
PEER_MIN_AREA_M2 = 40.0  # mask_to_poly_geojson(min_area=40); GeoInference gives no way to change it
GSD_M = 0.3
STRIP_PX = 1024
AREAS = ("test", "val")

PEER_SCRIPT = """
import json, sys
import torch
from geo_inference.geo_inference import GeoInference

options = json.loads(sys.argv[1])
torch.set_num_threads(options["torch_threads"])
peer = GeoInference(
    model=options["model"], work_dir=options["out"], mask_to_vec=True, device="cpu", num_classes=1,
    prediction_threshold=options["threshold"],
)
peer(
    inference_input=options["scene"], bands_requested=["1", "2", "3"], patch_size=options["chip_px"],
    workers=options["workers"],
)
"""


@dataclass(frozen=True)
class Score:
    """Pixel IoU of a candidate's mask and of its polygons, by area of Accra."""

    mask: dict[str, float]
    polygons: dict[str, float]
    polygon_count: int


def main() -> None:
    args = _parse()
    args.work.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle(args.model)
    scene = prepare_scene(args.data / "accra" / "accra.tif", args.work, args.scene_fraction)
    runs: dict[str, list[Measured]] = {}
    scores: dict[str, Score] = {}
    for repeat in range(args.repeats):
        for name in args.candidates:
            measured, mask, polygons = CANDIDATES[name](scene, bundle, args, args.work / f"{name}-{repeat}")
            runs.setdefault(name, []).append(measured)
            scores[name] = score(mask, polygons, scene, args.data / "accra")
    print(report(runs, scores, scene, bundle, args))
    if args.json:
        args.json.write_text(json.dumps(_as_data(runs, scores), indent=2) + "\n")


def _parse() -> argparse.Namespace:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geoseg" / "benchmarks"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="shipped model or bundle (default: %(default)s)")
    parser.add_argument("--scene-fraction", type=float, default=1.0, help="share of the scene around the test area")
    parser.add_argument("--threads", type=int, default=2, help="CPUs for each (default: %(default)s)")
    parser.add_argument("--peer-workers", type=int, help="geo-inference's dask threads (default: as many as CPUs)")
    parser.add_argument("--peer-torch-threads", type=int, default=1, help="torch threads in each of them")
    parser.add_argument("--chip-px", type=int, default=512, help="geo-inference's patch size (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn; the median counts")
    parser.add_argument("--candidates", nargs="+", choices=tuple(CANDIDATES), default=tuple(CANDIDATES))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GEOSEG_REALDATA", beside)))
    parser.add_argument("--work", type=Path, default=cache, help="folder kept between runs (default: %(default)s)")
    parser.add_argument(
        "--peer-python", type=Path, help="a Python with geo-inference, instead of an environment in --work"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def prepare_scene(source: Path, work: Path, fraction: float) -> Path:
    """Average the scene to 0.3 m, once, into the file that both candidates read.

    Uncompressed 256 px tiles, band by band: what geo-inference reads. Its nodata value is 0, so valid pixels are at
    least 1: neither candidate loses a black pixel.
    """
    path = work / f"accra-30cm-{fraction:g}.tif"
    if path.exists():
        return path
    scene = open_scene(source).at_gsd(GSD_M)
    window = _window_of_fraction(scene.grid, fraction, _area_bounds(source.parent, scene.grid, "test"))
    grid, aside = scene.grid.crop(window), path.with_suffix(".part.tif")
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "nodata": 0, "tiled": True, "blockxsize": 256,
        "blockysize": 256, "interleave": "band", "crs": grid.crs, "transform": grid.transform, "height": grid.height,
        "width": grid.width,
    }  # fmt: skip
    with rasterio.open(aside, "w", **profile) as target:
        for row in range(0, grid.height, STRIP_PX):
            strip = Window(row, 0, min(STRIP_PX, grid.height - row), grid.width)
            target.write(_read_strip(scene, window, strip), window=rasterio.windows.Window.from_slices(*strip.slices))
    aside.replace(path)
    return path


def _read_strip(scene: Scene, window: Window, strip: Window) -> NDArray[np.uint8]:
    pixels = scene.read(Window(window.row + strip.row, window.col + strip.col, *strip.shape))
    return np.where(pixels.valid, np.clip(pixels.values, 1, 255), 0).astype(np.uint8)


def _window_of_fraction(grid: Grid, fraction: float, bounds: tuple[float, float, float, float]) -> Window:
    """Return the share of a grid that lies around the middle of `bounds`, moved inside where it hangs over."""
    around = grid.window_of_bounds(bounds)
    height, width = (max(1, round(n * fraction**0.5)) for n in grid.shape)
    row = min(max(0, around.row + around.height // 2 - height // 2), grid.height - height)
    col = min(max(0, around.col + around.width // 2 - width // 2), grid.width - width)
    return Window(row, col, height, width)


def _area_bounds(folder: Path, grid: Grid, area: str) -> tuple[float, float, float, float]:
    return tuple(_areas(folder, grid)[area].total_bounds)


def _areas(folder: Path, grid: Grid) -> dict[str, Any]:
    import geopandas

    frame = geopandas.read_file(folder / "splits.geojson").to_crs(grid.crs)
    return {area: frame[frame["split"] == area].geometry for area in AREAS}


def run_peer(
    scene: Path, bundle: Bundle, args: argparse.Namespace, out: Path, *, frozen: bool = False
) -> tuple[Measured, Path, Path]:
    """Run geo-inference in its own environment; return what it took, its mask and its polygons."""
    _empty(out)
    options = {
        "model": str(export_torchscript(bundle, out / "network.pt", frozen=frozen)),
        "out": str(out), "scene": str(scene),
        "threshold": bundle.spec.threshold, "chip_px": args.chip_px, "workers": args.peer_workers or args.threads,
        "torch_threads": args.peer_torch_threads,
    }  # fmt: skip
    command = [str(args.peer_python or make_peer_environment(args.work)), "-c", PEER_SCRIPT, json.dumps(options)]
    env = {"OMP_NUM_THREADS": str(args.peer_torch_threads)}
    measured = measure(command, cpus=args.threads, log=out / "log.txt", env=env)
    (mask,), (polygons,) = out.glob("*_mask_*.tif"), out.glob("*_polygons_*.geojson")
    return measured, mask, polygons


def make_peer_environment(work: Path) -> Path:
    """Install geo-inference into an environment of its own, once; return its Python."""
    folder = work / f"venv-{PEER}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
        (folder / "ready").touch()
    return python


def export_torchscript(bundle: Bundle, path: Path, *, frozen: bool) -> Path:
    """Write a bundle's network as TorchScript: raw uint8 pixels in, one channel of probability out.

    `frozen` is more than the peer asks of its users: constants folded, memory in channels-last order.
    """
    import torch

    from geoseg.networks import load_segmenter

    class RawPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.segmenter = load_segmenter(bundle)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            values = pixels.to(torch.float32)
            if frozen:
                values = values.contiguous(memory_format=torch.channels_last)
            return self.segmenter(values)[:, bundle.spec.target_index : bundle.spec.target_index + 1]

    network = RawPixels().eval()
    if frozen:
        network = network.to(memory_format=torch.channels_last)
    example = torch.zeros(1, len(bundle.spec.bands), 512, 512, dtype=torch.uint8)
    with torch.no_grad():
        traced = torch.jit.trace(network, example)
    torch.jit.save(torch.jit.freeze(traced) if frozen else traced, path)
    return path


def run_geoseg(scene: Path, bundle: Bundle, args: argparse.Namespace, out: Path) -> tuple[Measured, Path, Path]:
    """Run `geoseg run` as a user does; return what it took, its mask and its polygons.

    The network is exported beforehand, as it is for the peer: geoseg does so once for a model and keeps the file.
    """
    from geoseg.engines.onnx import onnx_path

    _empty(out)
    onnx_path(bundle)
    command = [
        sys.executable, "-m", "geoseg", "run", str(scene), "--model", str(bundle.path),
        "--out", str(out / "result"), "--threshold", str(bundle.spec.threshold), "--device", "cpu",
        "--min-area-m2", str(PEER_MIN_AREA_M2), "--threads", str(args.threads),
    ]  # fmt: skip
    measured = measure(command, cpus=args.threads, log=out / "log.txt")
    return measured, out / "result" / "mask.tif", out / "result" / "buildings.gpkg"


CANDIDATES = {
    "geo-inference": run_peer,
    "geo-inference (frozen network)": partial(run_peer, frozen=True),
    "geoseg": run_geoseg,
}


def _empty(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def score(mask: Path, polygons: Path, scene: Path, folder: Path) -> Score:
    """Score a mask and its polygons on the labels of Accra, on the pixels of the scene."""
    import geopandas

    grid = open_scene(scene).grid
    frame = geopandas.read_file(polygons)
    if "value" in frame:  # geo-inference outlines no-data as value 255
        frame = frame[frame["value"] == 1]
    labels = _warp_labels(folder / "accra_buildings.tif", grid)
    areas = {area: _burn(shapes, grid) & (labels != 255) for area, shapes in _areas(folder, grid).items()}
    areas = {area: inside for area, inside in areas.items() if inside.any()}
    with rasterio.open(mask) as source:
        predicted = source.read(1) == 1
    burned = _burn(frame.geometry.to_crs(grid.crs), grid)
    return Score(
        mask={area: _iou(predicted[inside], labels[inside] == 1) for area, inside in areas.items()},
        polygons={area: _iou(burned[inside], labels[inside] == 1) for area, inside in areas.items()},
        polygon_count=len(frame),
    )


def _warp_labels(path: Path, grid: Grid) -> NDArray[np.uint8]:
    labels = np.full(grid.shape, 255, np.uint8)
    with rasterio.open(path) as source:
        reproject(rasterio.band(source, 1), labels, dst_transform=grid.transform, dst_crs=grid.crs, dst_nodata=255,
                  resampling=Resampling.mode)  # fmt: skip
    return labels


def _burn(shapes: Any, grid: Grid) -> NDArray[np.bool_]:
    if len(shapes) == 0:
        return np.zeros(grid.shape, bool)
    return rasterize(shapes, out_shape=grid.shape, transform=grid.transform).astype(bool)


def _iou(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else float("nan")


def report(
    runs: dict[str, list[Measured]], scores: dict[str, Score], scene: Path, bundle: Bundle, args: argparse.Namespace
) -> str:
    """Lay the figures out as a markdown table for docs/benchmarks.md."""
    grid = open_scene(scene).grid
    seconds = {name: statistics.median(m.seconds for m in measured) for name, measured in runs.items()}
    lines = [
        f"Accra at {GSD_M} m, {grid.width} x {grid.height} px ({grid.width * grid.height / 1e6:.1f} Mpx), model "
        f"{bundle.spec.name} {bundle.spec.version}, threshold {bundle.spec.threshold:g}, smallest area "
        f"{PEER_MIN_AREA_M2:g} m2, {args.threads} CPUs; {PEER} ({args.chip_px} px patches, "
        f"overlap fixed at 50 %, {args.peer_workers or args.threads} workers x {args.peer_torch_threads} threads); "
        f"geoseg: chips of at most {bundle.spec.chip_px} px, halo {bundle.spec.halo_px} px; median of {args.repeats}.",
        "",
        "| | seconds | Mpx/s | peak memory, MB | polygons | " + " | ".join(_columns(scores)) + " |",
        "| --- " + "| ---: " * (4 + len(_columns(scores))) + "|",
        *(_row(name, seconds[name], measured, scores[name], grid) for name, measured in runs.items()),
    ]
    peers = [name for name in seconds if name != "geoseg" and "geoseg" in seconds]
    lines += [f"\ngeoseg is {seconds[name] / seconds['geoseg']:.2f} times as fast as {name}." for name in peers]
    return "\n".join(lines)


def _columns(scores: dict[str, Score]) -> list[str]:
    areas = next(iter(scores.values())).mask
    return [f"IoU {area}, {what}" for what in ("mask", "polygons") for area in areas]


def _row(name: str, seconds: float, measured: list[Measured], found: Score, grid: Grid) -> str:
    peak = max(m.peak_mb for m in measured)
    ious = [f"{value:.4f}" for value in (*found.mask.values(), *found.polygons.values())]
    speed = grid.width * grid.height / 1e6 / seconds
    return (
        f"| {name} | {seconds:.1f} | {speed:.2f} | {peak:,.0f} | {found.polygon_count:,} | " + " | ".join(ious) + " |"
    )


def _as_data(runs: dict[str, list[Measured]], scores: dict[str, Score]) -> dict[str, Any]:
    return {name: {"runs": [asdict(m) for m in runs[name]], "score": asdict(scores[name])} for name in runs}


if __name__ == "__main__":
    main()
