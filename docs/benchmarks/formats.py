"""What each vector format costs: python docs/benchmarks/formats.py RESULT [--copies 20].

RESULT is the folder of a finished run. Its footprints are written in every format, each in a process of its own, once
and as several copies side by side, as a larger scene would have them: memory that grows shows itself.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import measure

WRITE = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
import shapely
from pyproj import CRS
from geoseg.outputs.batches import BATCH, ROW_GROUP, rebatch, sort_along_curve
from geoseg.outputs.footprints import ALWAYS, FORMATS, add_format
from geoseg.outputs.geoparquet import read_batches

source, name, copies, folder = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
import geopandas
frame = geopandas.read_parquet(source, columns=["geometry"])
(left, bottom, right, top), crs = frame.total_bounds, frame.crs
del frame

def moved(batch, step):
    shapes = shapely.transform(shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False)), lambda xy: xy + step)
    boxes = shapely.bounds(shapes)
    names = ("xmin", "ymin", "xmax", "ymax")
    box = pa.StructArray.from_arrays([pa.array(side) for side in boxes.T.copy()], names=names)
    columns = {one: batch[one] for one in batch.schema.names}
    return pa.record_batch(columns | {"geometry": pa.array(shapely.to_wkb(shapes), pa.binary()), "bbox": box})

def batches():
    for number in range(copies):
        for batch in read_batches(source):
            yield moved(batch, np.array([0.0, (bottom - top) * number]))

if name == ALWAYS or not (folder / "buildings.parquet").exists():
    bounds = (left, bottom + (bottom - top) * (copies - 1), right, top)
    rows = sort_along_curve(rebatch(batches(), BATCH), bounds, folder / "spool")
    rows = rebatch(rows, ROW_GROUP)
    first = next(rows)
    from itertools import chain
    FORMATS[ALWAYS].write(chain([first], rows), first.schema, crs, folder / "buildings.parquet")
elif name in FORMATS:
    add_format(folder / "buildings.parquet", crs, name)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--copies", type=int, default=20)
    args = parser.parse_args()
    from geoseg.outputs.footprints import FORMATS

    count = json.loads((args.result / "run.json").read_text())["counts"]["buildings"]
    many = count * args.copies
    print(f"{count:,} buildings, and {many:,}; microseconds are those of a core, without imports:\n")
    print(f"| format | MB | us per building | peak memory, MB | with {many:,} |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="geoseg-formats-") as name:
        one, several = Path(name, "one"), Path(name, "several")
        one.mkdir()
        several.mkdir()
        found = {}
        for form in ("parquet", *(form for form in FORMATS if form != "parquet")):
            took = []
            for folder, copies in ((one, 1), (several, args.copies)):
                command = [sys.executable, "-c", WRITE, str(args.result / "buildings.parquet")]
                full = measure([*command, form, str(copies), str(folder)], cpus=1, log=Path(name, "log"))
                idle = measure([*command, "nothing", str(copies), str(folder)], cpus=1, log=Path(name, "log"))
                took.append(((full.cpu_s - idle.cpu_s) / many * 1e6, full.peak_mb))
            found[form] = (took, (one / f"buildings{FORMATS[form].suffix}").stat().st_size / 1e6)
    for form, (((_, once_mb), (each, often_mb)), size) in found.items():
        print(f"| `{form}` | {size:.1f} | {each:.0f} | {once_mb:.0f} | {often_mb:.0f} |")


if __name__ == "__main__":
    main()
