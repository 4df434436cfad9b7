"""geoseg at scale, without a network: python docs/benchmarks/scale.py {speed,memory,sparse,workers,shares,resume} DATA.

DATA is the folder of the real imagery. `ThresholdSegmenter` stands in for the network: what is measured is everything
else. Big scenes are label rasters of Massachusetts (real building shapes) repeated side by side as a GDAL VRT.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from measure import Measured, measure

CPUS = 2
SHEETS = 10
"""Label rasters along each side of the piece that is repeated: 100 of them, 15,000 px."""

RUN = """
import json, sys
from dataclasses import replace
from pathlib import Path
from geoseg.bundle import Bundle, ModelSpec
from geoseg.engines import ThresholdSegmenter
from geoseg.grid import fit_lattice
from geoseg.inference import Plan
from geoseg.run import RunSettings, run_plan
from geoseg.run.cluster import limit_memory
from geoseg.scene import data_windows, open_scene

limit_memory()
scene, out, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
spec = ModelSpec(name="threshold", network="none", bands=("gray",), gsd_m=1.0, mean=(0.0,), std=(1.0,), min_area_m2=5.0)
opened = open_scene(scene).with_bands([1])
lattice = fit_lattice(opened.grid.shape, chip_px=1024, halo_px=32)
plan = Plan(opened, lattice, ThresholdSegmenter(batch_size=1), covered=data_windows(opened))  # as plan_inference does
if __name__ == "__main__":
    report = run_plan(plan, Bundle(spec, Path("none"), "0"), RunSettings(out=out, **options), quiet=True).report
    print(json.dumps(report))
"""


def write_piece(data: Path, path: Path) -> Path:
    """Put label rasters side by side: `(y, x)` uint8, 0 or 255, deflated in TIFF tiles like an orthophoto's."""
    files = sorted((data / "massachusetts" / "labels_without_image").glob("*.tif"))[: SHEETS * SHEETS]
    if len(files) < SHEETS * SHEETS:
        raise SystemExit(f"{data} holds {len(files)} label rasters, expected {SHEETS * SHEETS}")
    side = 1500 * SHEETS
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:26986", "compress": "deflate"}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "zlevel": 1}
    place = rasterio.Affine(1, 0, 200_000, 0, -1, 900_000)
    pixels = np.zeros((side, side), np.uint8)
    for number, file in enumerate(files):
        row, col = (1500 * n for n in divmod(number, SHEETS))
        with rasterio.open(file) as src:
            pixels[row : row + 1500, col : col + 1500] = np.where(src.read(1) > 0, 255, 0)
    with rasterio.open(path, "w", height=side, width=side, transform=place, **profile, **layout) as dst:
        dst.write(pixels, 1)
    return path


def write_repeated(piece: Path, path: Path, side: int, *, valid_share: float = 1.0) -> Path:
    """Write a VRT of `side` x `side` pixels that repeats a piece; with `valid_share` only in its first rows."""
    with rasterio.open(piece) as src:
        size, wkt, place = src.width, src.crs.to_wkt(), src.transform.to_gdal()
    rows = round(side * valid_share)
    places = [(row, col) for row in range(0, rows, size) for col in range(0, side, size)]
    sources = "".join(_source(piece, size, row, col, rows, side) for row, col in places)
    nodata = "<NoDataValue>7</NoDataValue>" if valid_share < 1 else ""
    band = f'<VRTRasterBand dataType="Byte" band="1">{nodata}<ColorInterp>Gray</ColorInterp>{sources}</VRTRasterBand>'
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{', '.join(map(repr, place))}</GeoTransform>{band}</VRTDataset>"
    )
    return path


def _source(piece: Path, size: int, row: int, col: int, rows: int, cols: int) -> str:
    height, width = min(size, rows - row), min(size, cols - col)
    rect = f'xSize="{width}" ySize="{height}"'
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="0">{piece}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" {rect}/><DstRect xOff="{col}" yOff="{row}" {rect}/></SimpleSource>'
    )


def run(scene: Path, work: Path, *, cpus: int = CPUS, **options: object) -> tuple[dict, Measured]:
    """Run a scene in a process of its own; return its report, and what it took."""
    script, log = work / "run.py", work / "run.log"
    script.write_text(RUN)
    out = work / f"out-{time.monotonic_ns()}"
    measured = measure([sys.executable, str(script), str(scene), str(out), json.dumps(options)], cpus=cpus, log=log)
    report = json.loads(log.read_text().splitlines()[-1])
    subprocess.run(["rm", "-rf", str(out)], check=True)
    return report, measured


def speed(data: Path, work: Path, side: int) -> None:
    """Seconds per gigapixel with rasters and polygons written, and where they go: with threads, and with workers."""
    scene, pixels = write_repeated(write_piece(data, work / "piece.tif"), work / "scene.vrt", side), side * side / 1e9
    found = {"one process, 2 threads": run(scene, work), "2 workers": run(scene, work, workers=2, threads=1)}
    report, _ = found["2 workers"]
    print(f"{pixels:.2f} Gpx, {report['counts']['buildings']:,} buildings, {CPUS} cores; seconds per Gpx:\n")
    print("| what | " + " | ".join(found) + " |\n| --- | --- | --- |")
    rows = {
        "wall, the whole process": [took.seconds for _, took in found.values()],
        "both cores' time": [took.cpu_s for _, took in found.values()],
    }
    stages = [report["seconds"] for report, _ in found.values()]
    rows |= {f"stage: {name}": [one.get(name, 0.0) for one in stages] for name in stages[0]}
    shares = [report["thread_seconds_in_blocks"] for report, _ in found.values()]
    rows |= {f"in blocks, thread seconds: {name}": [one.get(name, 0.0) for one in shares] for name in shares[0]}
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value / pixels:.1f}" for value in values) + " |")


def memory(data: Path, work: Path, sides: Sequence[int], *, worker_sides: Sequence[int]) -> None:
    """Peak memory from small to large scenes: of one process with threads, and of client and workers apart."""
    piece = write_piece(data, work / "piece.tif")
    print("| scene | one process, 2 threads | its wall | largest of 2 workers | their client |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for side in sides:
        scene = write_repeated(piece, work / f"scene{side}.vrt", side)
        one, took = run(scene, work)
        cells = f"{one['peak_memory_mb']:,.0f} MB | {took.seconds:.0f} s"
        if side in worker_sides:
            two, _ = run(scene, work, workers=2, threads=1)
            cells += f" | {two['worker_peak_memory_mb']:,.0f} MB | {two['peak_memory_mb']:,.0f} MB"
        else:
            cells += " | |"
        print(f"| {side * side / 1e6:,.0f} Mpx | {cells} |", flush=True)


def sparse(data: Path, work: Path, side: int) -> None:
    """A scene of which 5 % is valid beside one that is valid all over, in seconds for each valid gigapixel."""
    piece = write_piece(data, work / "piece.tif")
    dense_side = round(side * 0.05**0.5)
    dense, dense_took = run(write_repeated(piece, work / "dense.vrt", dense_side), work)
    thin, thin_took = run(write_repeated(piece, work / "thin.vrt", side, valid_share=0.05), work)
    print("| scene | valid | wall | time of both cores | blocks stage |\n| --- | --- | --- | --- | --- |")
    for name, full, report, took in (("dense", dense_side, dense, dense_took), ("5 % valid", side, thin, thin_took)):
        valid = report["counts"]["valid_pixels"] / 1e6
        blocks = report["seconds"]["blocks"]
        times = f"{took.seconds:.1f} s | {took.cpu_s:.1f} s | {blocks:.1f} s"
        print(f"| {name}, {full:,} x {full:,} px | {valid:,.0f} Mpx | {times} |")
    expected = 20 * dense_took.seconds
    share = 100 * thin_took.seconds / expected
    print(f"\nA scene valid all over would take {expected:.0f} s; 5 % valid took {share:.1f} % of that.")


def workers(data: Path, work: Path, model: str) -> None:
    """Two single-threaded workers beside one, and beside two runs that share nothing but the machine; best of three."""
    print("| single-threaded workers | blocks | whole run | thread seconds of the blocks |\n| --- | --- | --- | --- |")
    found: dict[str, list[tuple[float, float, float]]] = {}
    for name, counts in 3 * (("1", (1,)), ("2", (2,)), ("1 in each of two runs at once", (1, 1))):
        found.setdefault(name, []).append(_run_workers(data, work, model, counts))
    for name, took in found.items():
        print(f"| {name} | " + " | ".join(f"{seconds:.1f} s" for seconds in min(took)) + " |")
    one, two, apart = (min(took)[0] for took in found.values())
    print(
        f"\nTwo workers are {one / two:.2f} times one in the blocks; two runs at once {2 * one / apart:.2f} times one."
    )


def _run_workers(data: Path, work: Path, model: str, counts: Sequence[int]) -> tuple[float, float, float]:
    """Run Accra once per count, at once; return seconds of the blocks, of the whole run and of a run's threads."""
    command = [sys.executable, "-m", "geoseg", "run", str(data / "accra" / "accra.tif"), "--model", model, "--quiet"]
    outs = [work / f"workers-{index}" for index in range(len(counts))]
    begun, runs = time.perf_counter(), []
    for count, out in zip(counts, outs, strict=True):
        options = ["--workers", str(count), "--threads", "1", "--out", str(out)]
        runs.append(subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL))
    if any(process.wait() for process in runs):
        raise SystemExit("a run failed")
    wall = time.perf_counter() - begun
    reports = [json.loads((out / "run.json").read_text()) for out in outs]
    subprocess.run(["rm", "-rf", *map(str, outs)], check=True)
    threads = max(sum(report["thread_seconds_in_blocks"].values()) for report in reports)
    return max(report["seconds"]["blocks"] for report in reports), wall, threads


def shares(data: Path, work: Path, model: str) -> None:
    """Accra with a network: what of the wall time is not the network."""
    out = work / "accra"
    command = [sys.executable, "-m", "geoseg", "run", str(data / "accra" / "accra.tif"), "--model", model, "--quiet"]
    measured = measure([*command, "--out", str(out)], cpus=CPUS, log=work / "accra.log")
    report = json.loads((out / "run.json").read_text())
    stages, busy = report["seconds"], report["thread_seconds_in_blocks"]
    in_blocks = sum(busy.values()) - busy["network"]
    after = stages.get("mosaic", 0) + stages.get("polygons", 0)
    network = busy["network"] / CPUS
    print("| what | value |\n| --- | --- |")
    print(f"| wall, the whole process | {measured.seconds:.1f} s |")
    print("| stages | " + ", ".join(f"{k} {v:.1f} s" for k, v in stages.items()) + " |")
    print("| in blocks, all threads | " + ", ".join(f"{k} {v:.1f} s" for k, v in busy.items()) + " |")
    print(f"| start, imports, opening | {measured.seconds - stages['blocks'] - after:.1f} s |")
    print(f"| blocks stage | {stages['blocks']:.1f} s, the network is {100 * network / stages['blocks']:.0f} % of it |")
    print(
        "| scheduling, reading, stitching, writing, joining: what of blocks, mosaic and polygons is not the network | "
        f"{100 * (stages['blocks'] - network + after) / measured.seconds:.1f} % of the wall time |"
    )
    print(f"| reading, stitching, writing in threads, mosaic and polygons | {in_blocks / CPUS + after:.1f} s |")


def resume(data: Path, work: Path, side: int) -> None:
    """A run that was killed half-way beside one that was not: seconds in all."""
    piece = write_piece(data, work / "piece.tif")
    scene = write_repeated(piece, work / "scene.vrt", side)
    whole = run(scene, work)[1].seconds
    script, out = work / "run.py", work / "killed"
    process = subprocess.Popen([sys.executable, str(script), str(scene), str(out), "{}"], stdout=subprocess.DEVNULL)
    begun = time.perf_counter()
    time.sleep(whole / 2)
    process.kill()
    process.wait()
    first = time.perf_counter() - begun
    again = time.perf_counter()
    text = subprocess.run(
        [sys.executable, str(script), str(scene), str(out), "{}"], check=True, capture_output=True, text=True
    )
    second = time.perf_counter() - again
    counts = json.loads(text.stdout.splitlines()[-1])["counts"]
    print("| run | seconds |\n| --- | --- |")
    print(f"| not interrupted | {whole:.1f} |")
    print(f"| killed after | {first:.1f} |")
    done = f"{counts['blocks_done_before']} of {counts['blocks']}"
    print(f"| the same command again: {done} blocks were done | {second:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "sparse", "workers", "shares", "resume"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--side", type=int, default=30_000, help="pixels along a side (speed, resume)")
    parser.add_argument("--sides", type=int, nargs="+", default=[6_000, 12_000, 30_000, 100_000], help="for memory")
    parser.add_argument("--worker-sides", type=int, nargs="*", default=[6_000, 30_000], help="for memory, with workers")
    parser.add_argument("--model", default="buildings-30cm", help="for workers and shares")
    chosen = parser.parse_args()
    data = chosen.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if chosen.what == "memory":
            memory(data, work, chosen.sides, worker_sides=chosen.worker_sides)
        elif chosen.what == "sparse":
            sparse(data, work, 100_000)
        elif chosen.what in ("speed", "resume"):
            {"speed": speed, "resume": resume}[chosen.what](data, work, chosen.side)
        else:
            {"workers": workers, "shares": shares}[chosen.what](data, work, chosen.model)


if __name__ == "__main__":
    main()
