"""What tells whether data have changed: all files that GDAL reads for a data set, with their sizes and times.

Whatever is kept, resumed or skipped compares fingerprints: runs, prepared training scenes, trainings, cross-validation,
search, fine-tuning and workers. Headers are read, not pixels.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

from geoseg.errors import GeosegError
from geoseg.gdal import GDAL_ERRORS
from geoseg.io.remote import is_remote, is_there
from geoseg.io.store import read_bytes, stamp
from geoseg.io.suffixes import RASTER_SUFFIXES, VECTOR_SUFFIXES
from geoseg.third_party import allow_no_georeference

Fingerprint = list[list[Any]]
"""A row per file: its name, size and modification time, or what its server says. Plain values, as JSON keeps them."""

OTHER_ORDER = "the files are in another order"

VRT_HEADS = (b"<VRTDataset", b"<OGRVRTDataSource", b"<GDALTileIndexDataset")
"""What GDAL knows files by that name others, whatever their suffix."""

HEAD_BYTES = 1024
"""How far GDAL looks for that."""

REQUESTS = 16
"""Files on servers that are asked for at a time."""

_WHOLE = frozenset({*RASTER_SUFFIXES, ".ovr", ".msk"} - {".img"})
"""Rasters that have everything in one file, but for what lies beside it; GDAL is asked about others."""

_BESIDE_RASTERS = (".aux.xml", ".aux", ".ovr", ".msk", ".rrd", ".rpb", ".rpc", "_rpc.txt", ".tab", ".wld")
"""What GDAL reads with a raster, after its name or its stem; world files besides (`_world_files`)."""

_PARTS = {
    **dict.fromkeys((".gpkg", ".sqlite", ".db"), ("-wal", "-journal")),
    ".shp": (".dbf", ".shx", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".idm", ".ind"),
    ".tab": (".dat", ".map", ".id", ".ind"),
    ".mif": (".mid",),
    ".csv": (".csvt", ".prj"),
    ".gml": (".gfs", ".xsd"),
    **dict.fromkeys((".fgb", ".json", ".geojson", ".parquet", ".geoparquet", ".pq", ".kml", ".kmz"), ()),
}
"""What GDAL reads with a file of polygons; edits of an open GeoPackage lie in its `-wal`."""

_NOT_READ = (".qml", ".qmd", ".sld", ".lyr", ".lyrx", ".xml", "-shm", ".md5", *RASTER_SUFFIXES, *VECTOR_SUFFIXES)
"""What may have the stem of a file of a kind that is not known, and is another data set, or a style."""

_ARCHIVE = re.compile(r"/vsi(zip|tar|7z|rar|gzip|cached|sparse|subfile)/")
_NUMBERS = re.compile(r"[\d\s.,eE+-]*")
_NETWORK = re.compile(r"/vsi(?:curl|curl_streaming)/(?=https?://)")
_BUCKET = re.compile(r"/vsi(s3|gs|az)(?:_streaming)?/")


def fingerprint(locations: Iterable[str | Path]) -> Fingerprint:
    """Return what distinguishes versions of data sets: a row for every file that GDAL reads for one of them.

    Equal data sets in other folders have equal fingerprints, if the files kept their times.

    Args:
        locations: Rasters, files of polygons, folders; local, on servers, in buckets or in archives.
    """
    files = [file for location in locations for file in files_of(location)]
    remote = [place for place, _ in files if is_remote(place)]
    said: dict[str, list[Any]] = {}
    if remote:
        with ThreadPoolExecutor(REQUESTS) as pool:
            said = dict(zip(remote, pool.map(stamp, remote), strict=True))
    rows = (said.get(place) or _local_row(place, name) for place, name in files)
    return [row for row in rows if row]


CHANGES = ("has changed since", "is missing now", "is new")


def name_changes(before: Fingerprint, now: Fingerprint, words: tuple[str, str, str] = CHANGES) -> list[str]:
    """Return how two fingerprints differ, file by file, such as "a.dbf has changed since"; nothing if equal."""
    changed, missing, new_ = words
    if before == now:
        return []
    old, new = _by_name(before), _by_name(now)
    changes = [f"{name} {changed}" for name in new if name in old and new[name] != old[name]]
    changes += [f"{name} {missing}" for name in old if name not in new]
    changes += [f"{name} {new_}" for name in new if name not in old]
    return changes or [OTHER_ORDER]


def _by_name(found: Fingerprint) -> dict[str, list[Any]]:
    """Return the facts by name of those files that are there; several files may have one name."""
    rows: dict[str, list[Any]] = {}
    for first, *facts in filter(None, found):  # a damaged report may have other rows
        name = str(first)
        if facts or name.endswith("/") or is_remote(name):
            rows.setdefault(name, []).append(facts)
    return rows


def files_of(location: str | Path) -> list[tuple[str, str]]:
    """Return the files that GDAL reads for a data set, itself first: where each is, and its name.

    They are: what lies beside it (overviews, masks, world files, parts of a Shapefile, the journal of a GeoPackage),
    the files that a VRT names, also by way of others, and all files of a folder.
    """
    found: dict[str, tuple[str, str]] = {}
    pending = [(_place_of(str(location)), "")]
    while pending:
        place, name = pending.pop()
        key = place if is_remote(place) else os.path.abspath(place)  # noqa: PTH100 - beside a link, not its target
        if key in found:
            continue
        if is_remote(place):
            found[key] = place, place
            more = [*_named_in(_read_remote(place), place)] if place.lower().endswith(".vrt") else []
        elif Path(place).is_dir():
            own, below = f"{PurePath(key).name}/", sorted(path for path in Path(place).rglob("*") if path.is_file())
            found[key] = place, own
            pending += [(str(path), f"{own}{path.relative_to(place).as_posix()}") for path in below[::-1]]
            continue
        else:
            found[key] = place, name or PurePath(place).name
            more = [*_beside(Path(place)), *named_by(place)]
        pending += [(each, "") for each in more[::-1]]
    return list(found.values())


def named_by(path: str) -> list[str]:
    """Return the files that a local VRT names: where each is, as URL if it is remote; nothing of any other file."""
    return [*_named_in(_read_head(Path(path)), path)]


def _local_row(place: str, name: str) -> list[Any]:
    """Return the row of a local file; none of what holds nothing."""
    if name.endswith("/"):
        return [name]
    row = stamp(place)
    if len(row) == 1:  # it is not there
        return [name]
    if name.lower().endswith(".aux.xml"):
        return _row_of_auxiliary(Path(place), name)
    if name.lower().endswith(("-wal", "-journal")) and not row[1]:
        return []
    return [name, *row[1:]]


def _row_of_auxiliary(path: Path, name: str) -> list[Any]:
    """Return the row of a `.aux.xml`: what it says but statistics, which QGIS leaves there when it shows a raster."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError):
        return [name, *stamp(str(path))[1:]]
    for parent in reversed([*root.iter()]):
        for child in [*parent]:
            is_statistic = child.tag == "Histograms" or child.get("key", "").startswith("STATISTICS_")
            is_empty = child.tag in ("Metadata", "PAMRasterBand") and not len(child)
            if is_statistic or is_empty:
                parent.remove(child)
    text = ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True)
    return [name, hashlib.sha256(text.encode()).hexdigest()[:16]] if len(root) else []


def _place_of(name: str) -> str:
    """Return the file, folder or URL behind a name that GDAL opens, such as `/vsizip/a.zip/b.tif`."""
    if network := _NETWORK.search(name):
        inside = _ARCHIVE.match(name)
        url = name[network.end() :]
        return re.split(r"(?<=\.zip|\.tar|\.tgz)/", url)[0] if inside else url
    if bucket := _BUCKET.search(name):
        return f"{bucket[1]}://{name[bucket.end() :]}"
    if is_remote(name) or _exists(name):
        return name
    if archive := _ARCHIVE.match(name):
        inner = name[archive.end() :].replace("{", "").replace("}", "")
        inner = inner.partition(",")[2] if archive[1] == "subfile" else inner
        return next((str(path) for path in (Path(inner), *Path(inner).parents) if path.is_file()), inner)
    if name.startswith("vrt://"):
        return _place_of(name.removeprefix("vrt://").partition("?")[0])
    quoted = re.findall(r'"([^"]+)"', name)
    parts = name.split(":")
    spans = [":".join(parts[i:j]) for i in range(len(parts)) for j in range(len(parts), i, -1)][:64]
    return next((span for span in (*quoted, *sorted(spans, key=len, reverse=True)) if _exists(span)), name)


def _exists(name: str) -> bool:
    return bool(name.strip()) and is_there(name)


def _read_head(path: Path) -> bytes:
    """Return the content of a file that names others; nothing of one that does not, nor of one that is not there."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            return head + file.read() if any(known in head for known in VRT_HEADS) else b""
    except (OSError, ValueError):
        return b""


def _read_remote(url: str) -> bytes:
    try:
        return read_bytes(url)
    except GeosegError:  # opening it will report that
        return b""


def _named_in(text: bytes, place: str) -> Iterator[str]:
    """Yield the files that a VRT names, wherever it does so: as sources, overviews, masks, height models."""
    try:
        root = ElementTree.fromstring(text) if text else None
    except ElementTree.ParseError:  # opening it will report that
        return
    folder = place.rpartition("/")[0]
    for element in root.iter() if root is not None else ():
        name = (element.text or "").strip()
        if not name or name.startswith("<") or _NUMBERS.fullmatch(name):
            continue
        beside = f"{folder}/{name}" if folder else name
        is_relative = "1" in (element.get("relativeToVRT"), element.get("relativetoVRT"), element.get("relativeToDSN"))
        for wanted in (beside, name) if is_relative or is_remote(place) else (name, beside):
            found = _place_of(wanted)
            if is_remote(found) or _exists(found):
                yield found
                break


def _beside(path: Path) -> list[str]:
    """Return what lies beside a local file and is read with it."""
    suffix = path.suffix.lower()
    if suffix in _WHOLE:
        endings: Sequence[str] = (*_BESIDE_RASTERS, *_world_files(suffix))
    elif suffix in _PARTS:
        endings = _PARTS[suffix]
    else:
        return _asked_of_gdal(path)
    listed, own = _names_in(path.parent), path.name.lower()
    wanted = dict.fromkeys(f"{start}{ending}" for ending in endings for start in (own, own[: len(own) - len(suffix)]))
    return [str(path.with_name(name)) for each in wanted for name in listed.get(each, ()) if each != own]


def _world_files(suffix: str) -> tuple[str, ...]:
    """Return what a raster's world file may be called: `.tfw`, `.tifw`, `.tfwx` of `.tif`."""
    short = f".{suffix[1:2]}{suffix[-1:]}w"
    return short, f"{short}x", f"{suffix}w"


def _asked_of_gdal(path: Path) -> list[str]:
    """Return the files of a raster of several files, as GDAL lists them; else those that have its stem."""
    import rasterio

    if not path.is_file():
        return []
    try:
        with allow_no_georeference(), rasterio.open(path) as dataset:
            return [str(file) for file in dataset.files]
    except GDAL_ERRORS:
        pass
    own = path.stem.lower()
    alike = {key: names for key, names in _names_in(path.parent).items() if PurePath(key).stem == own}
    return [str(path.with_name(name)) for key in alike if not key.endswith(_NOT_READ) for name in alike[key]]


_SETTLED_NS = 2_000_000_000
"""A folder that did not change for this long has another time when it changes again, whatever its clock's steps."""

_FOLDERS = 8
"""Folders whose names are kept: a thousand scenes of one folder need them a thousand times."""

_listed: dict[str, tuple[int, dict[str, list[str]]]] = {}


def _names_in(folder: Path) -> dict[str, list[str]]:
    """Return the names in a folder by their lower case, as GDAL looks for them; listed anew when it has changed."""
    key = os.path.abspath(folder)  # noqa: PTH100 - resolve() would ask the disk
    try:
        changed = folder.stat().st_mtime_ns
        if key in _listed and _listed[key][0] == changed:
            return _listed[key][1]
        names: dict[str, list[str]] = {}
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names alone, of thousands of files
            names.setdefault(name.lower(), []).append(name)
    except OSError:
        return {}
    _listed.pop(key, None)
    if time.time_ns() - changed > _SETTLED_NS:
        _listed[key] = changed, names
        while len(_listed) > _FOLDERS:
            _listed.pop(next(iter(_listed)), None)
    return names
