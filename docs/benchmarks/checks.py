"""What the checks of the input cost in a run of Accra: python docs/benchmarks/checks.py DATA.

The run needs all of them: its pixels are of 16 bits (a VRT), so they are stretched and looked through for a collar, and
the overview that the stretch is measured in is compared with the pixels; its AOI, the whole scene, is on another datum.
The checks and the run are timed in one process: wall seconds, and those of the processor, which other work does not
change.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import geopandas
import rasterio
import shapely
from rasterio.shutil import copy

from geoseg import RunSettings, run_scene
from geoseg.io import datum
from geoseg.scene.scene import Scene

GHANA = 2136
"""EPSG code of Accra / Ghana National Grid: PROJ's shift from it to WGS 84 is accurate to 6 m."""

Seconds = dict[str, tuple[float, float]]
"""Wall seconds and processor seconds, by name."""


def timed(name: str, function: Callable[..., Any], seconds: Seconds) -> Callable[..., Any]:
    """Return a function that also adds its time to `seconds`."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        wall, own = time.perf_counter(), time.thread_time()
        try:
            return function(*args, **options)
        finally:
            before = seconds.get(name, (0.0, 0.0))
            seconds[name] = before[0] + time.perf_counter() - wall, before[1] + time.thread_time() - own

    return call


def time_checks(seconds: Seconds) -> None:
    """Measure the checks from now on, wherever they are called."""
    original = datum.check_shift
    check_shift = timed("datum shift of the AOI", original, seconds)
    for module in list(sys.modules.values()):
        if getattr(module, "check_shift", None) is original:
            module.check_shift = check_shift  # type: ignore[attr-defined]
    for name, method in (("overviews", "_without_stale_overviews"), ("collar", "_warn_of_collar")):
        setattr(Scene, method, timed(name, getattr(Scene, method), seconds))


def main() -> None:
    """Run Accra and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    seconds: Seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        vrt = Path(folder) / "accra.vrt"
        copy(args.data / "accra" / "accra.tif", vrt, driver="VRT")
        vrt.write_text(vrt.read_text().replace('dataType="Byte" band', 'dataType="UInt16" band'))
        with rasterio.open(vrt) as src:
            extent = geopandas.GeoSeries([shapely.box(*src.bounds).buffer(100)], crs=src.crs.to_wkt())
        settings = RunSettings(out=Path(folder) / "out", aoi=extent.to_crs(GHANA), threads=args.threads)
        time_checks(seconds)
        wall, own = time.perf_counter(), time.process_time()
        report = run_scene(vrt, settings, quiet=True).report
        whole = time.perf_counter() - wall, time.process_time() - own
    assert report["scene"]["levels"], "the pixels were not stretched"
    seconds["all of them"] = sum(s[0] for s in seconds.values()), sum(s[1] for s in seconds.values())
    print(f"| accra, {report['counts']['pixels'] / 1e6:.1f} Mpx | wall, s | share | processor, s | share |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, found in seconds.items():
        cells = (f"{value:.2f} | {100 * value / of:.2f} %" for value, of in zip(found, whole, strict=True))
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"| the run | {whole[0]:.1f} | | {whole[1]:.1f} | |")


if __name__ == "__main__":
    main()
