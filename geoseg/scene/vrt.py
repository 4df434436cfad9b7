"""GDAL virtual rasters: several rasters of one grid as one, built in memory; whether all sources of a given one exist.

GDAL opens a VRT without its sources, and fails at every read of them; `open_raster` (`files`) sees to it that it always
says so. It runs no Python of a pixel function unless the user allows it (`GDAL_VRT_ENABLE_PYTHON`). A
`VRTRawRasterBand` reads the bytes of any file as pixels, also /etc/passwd: from 3.12 on GDAL restricts it to the folder
of the VRT, unless `GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE` says otherwise
(https://gdal.org/en/stable/drivers/raster/vrt.html). geoseg holds to the same rule with every GDAL.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.enums import ColorInterp, MaskFlags

from geoseg.errors import MissingFileError, NotARasterError, SceneMismatchError, UsageError
from geoseg.gdal import GDAL_ERRORS, placed_crs
from geoseg.io.remote import is_remote, is_there, vsi_path
from geoseg.scene.bands import colors_of, order_bands
from geoseg.scene.files import is_vrt, open_raster
from geoseg.scene.georeference import check_transform

GDAL_TYPES = {dtype: typename_fwd[code] for dtype, code in dtype_rev.items() if dtype and "complex" not in dtype}
"""GDAL's names of the types of real numbers, such as Byte for uint8."""

OFF_GRID_PX = 0.05
"""How far a file may lie off the common grid, pixels."""

RAW_SOURCES = "GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE"

SHOWN = 100
"""Characters of a name in a message."""

SOURCE_TAGS = ("SourceFilename", "SourceDataset")


def check_sources(path: str) -> None:
    """Refuse a local VRT with a source that does not exist, or that leads back to itself.

    Sources on servers, in archives and within other files are not looked for.

    Raises:
        MissingFileError: If a source does not exist.
        NotARasterError: If a VRT is not text, is a source of itself, also by way of others, or reads raw bytes of other
            folders.
    """
    if is_remote(path) or path.startswith("/vsi") or not is_vrt(path):
        return
    first = Path(path).resolve()
    pending: list[tuple[Path, tuple[Path, ...]]] = [(first, (first,))]
    known = {first}
    while pending:
        vrt, way = pending.pop()
        root = _parse(_read_text(vrt), str(vrt))
        _check_raw_bands(root, vrt.parent, str(vrt))
        for source in _local_sources(root, vrt.parent):
            if not is_there(source):
                raise MissingFileError(
                    f"{vrt} has the source {source}, which does not exist. Copy it there, or build the VRT again with "
                    "`gdalbuildvrt`."
                )
            found = source.resolve()
            if found in way:
                names = " -> ".join(step.name for step in (*way, found))
                raise NotARasterError(
                    f"{path} is a VRT that is a source of itself ({names}). Build it again with `gdalbuildvrt`, in "
                    "another folder than its sources."
                )
            if found not in known and is_vrt(str(found)):
                known.add(found)
                pending.append((found, (*way, found)))


def check_bands(src: rasterio.DatasetReader, path: str) -> None:
    """Refuse an open VRT that reads raw bytes of other folders, or is computed by functions that GDAL does not run.

    Raises:
        NotARasterError: If it is one.
    """
    if src.driver != "VRT":
        return
    try:
        text = src.tags(ns="xml:VRT").get("xml:VRT", "")
    except UnicodeDecodeError as err:
        raise NotARasterError(
            f"{path} is a VRT with damaged text ({err}). Build it again with `gdalbuildvrt`."
        ) from err
    _check_raw_bands(_parse(text, path), Path(path).resolve().parent, path)
    if "PixelFunctionLanguage" not in text:
        return
    try:
        with rasterio.Env():
            src.read(window=((0, 1), (0, 1)))
    except GDAL_ERRORS as err:
        raise NotARasterError(
            f"{path} computes its pixels by a function that GDAL does not run here ({err}). Convert it with "
            "`gdal_translate` where GDAL may run it, or see GDAL_VRT_ENABLE_PYTHON in GDAL's documentation."
        ) from err


def _read_text(vrt: Path) -> str:
    try:
        return vrt.read_bytes().decode()
    except UnicodeDecodeError as err:
        raise NotARasterError(
            f"{vrt} is a VRT that is not in UTF-8 ({err.reason} at byte {err.start:,}). Save it as UTF-8, or "
            "build it again with `gdalbuildvrt`."
        ) from err


def _parse(text: str, path: str) -> ElementTree.Element:
    """Return the root of a VRT; an empty one if it is not XML, which GDAL reports.

    Raises:
        NotARasterError: If GDAL would report it in half a character: it quotes up to a byte, and more than ASCII.
    """
    may_break = not text.isascii() or "&#" in text  # of which a VRT may have the number of half a character
    try:
        root = ElementTree.fromstring(text)
        names = (name for element in root.iter() for name in (element.tag, *element.keys()))
        odd = next((name for name in names if not str(name).isascii()), None) if may_break else None
        cause = f"there is no element or attribute {odd[:SHOWN]!r}" if odd else ""
    except ElementTree.ParseError as err:
        root, cause = ElementTree.Element("VRTDataset"), str(err) if may_break else ""
    if cause:
        raise NotARasterError(f"{path} is not well-formed as a VRT ({cause}). Build it again with `gdalbuildvrt`.")
    return root


def _local_sources(root: ElementTree.Element, folder: Path) -> Iterator[Path]:
    """Yield the local files that a VRT names."""
    for element in root.iter():
        name = (element.text or "").strip()
        if element.tag not in SOURCE_TAGS or not name or is_remote(name) or name.startswith(("/vsi", "<")):
            continue
        if re.match(r"[A-Za-z]\w+:", name):  # GTIFF_DIR:1:..., NETCDF:"...":band, a connection
            continue
        yield folder / name if element.get("relativeToVRT") == "1" else Path(name)


def _check_raw_bands(root: ElementTree.Element, folder: Path, name: str) -> None:
    """Refuse raw files that lie neither in a VRT's folder nor below it, unless GDAL's own option allows them."""
    if os.environ.get(RAW_SOURCES) == "ALL":
        return
    for band in root.iter("VRTRasterBand"):
        source = band.findtext("SourceFilename", "").strip()
        if band.get("subClass") != "VRTRawRasterBand" or is_remote(source):
            continue
        if not (folder / source).resolve().is_relative_to(folder.resolve()):
            raise NotARasterError(
                f"{name} reads the bytes of {source}, which lies outside its folder, as pixels. Copy that file beside "
                f"it, or set {RAW_SOURCES}=ALL if you trust it."
            )


@dataclass(frozen=True, slots=True)
class Part:
    """What the VRT needs to know about one file."""

    path: str
    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]
    dtype: str
    colors: tuple[str, ...]
    nodata: float | None
    masked: bool
    has_mask_band: bool
    alpha_is_image: bool


def mosaic_vrt(paths: Sequence[str], nodata: float | None = None, *, has_alpha: bool = True) -> str:
    """Build a VRT over files that share one grid; a later file lies over an earlier one.

    Args:
        paths: Files or URLs.
        nodata: Nodata value that counts instead of that of the files.
        has_alpha: Whether bands that are marked alpha are masks.

    Returns:
        The VRT's XML, which rasterio opens like a path. Pixels that no file covers are nodata.

    Raises:
        NotARasterError: If a file cannot be opened, or holds no bands of real numbers.
        SceneMismatchError: If CRS, pixel size, bands or type differ, or a file lies between the pixels of the first.
        UsageError: If a nodata value is given for files with mask bands.
    """
    parts = [_read_header(path, has_alpha) for path in paths]
    if nodata is not None:
        masked = [part.path for part in parts if part.has_mask_band]
        if masked:
            raise UsageError(
                f"{masked[0]} has a mask band: several files as one scene cannot have `nodata={nodata:g}` as well. "
                "Omit it, or run each file as a scene of its own, without `mosaic`."
            )
        parts = [replace(part, nodata=nodata) for part in parts]
    first = parts[0]
    if first.dtype not in GDAL_TYPES:
        raise NotARasterError(
            f"{first.path} has pixels of type {first.dtype}; real numbers are expected. "
            "Convert it with `gdal_translate`."
        )
    offsets = [(0, 0), *(_offset(first, part) for part in parts[1:])]
    left, top = min(c for c, _ in offsets), min(r for _, r in offsets)
    width = max(c + p.shape[1] for (c, _), p in zip(offsets, parts, strict=True)) - left
    height = max(r + p.shape[0] for (_, r), p in zip(offsets, parts, strict=True)) - top
    transform = first.transform @ Affine.translation(left, top)
    placed = [(part, c - left, r - top) for part, (c, r) in zip(parts, offsets, strict=True)]

    srs = f"<SRS>{escape(first.crs.to_wkt())}</SRS>" if first.crs is not None else ""
    declared = f"<NoDataValue>{first.nodata}</NoDataValue>" if first.nodata is not None else ""
    bands = []
    for index, color in enumerate(first.colors, 1):
        sources = "".join(_source(part, col, row, str(index)) for part, col, row in placed)
        bands.append(
            f'<VRTRasterBand dataType="{GDAL_TYPES[first.dtype]}" band="{index}">{declared}'
            f"<ColorInterp>{color.capitalize()}</ColorInterp>{sources}</VRTRasterBand>"
        )
    if first.nodata is None and "alpha" not in first.colors:
        # A file's own mask where it has one, all valid where it has none, nodata between the files.
        sources = "".join(_source(part, col, row, "mask,1") for part, col, row in placed)
        bands.append(f'<MaskBand><VRTRasterBand dataType="Byte">{sources}</VRTRasterBand></MaskBand>')
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{srs}'
        f"<GeoTransform>{', '.join(repr(v) for v in transform.to_gdal())}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )


def _read_header(path: str, has_alpha: bool) -> Part:
    try:
        with open_raster(path) as src:
            told = [flags for flags in src.mask_flag_enums if has_alpha or MaskFlags.alpha not in flags]
            masked = any(flag.name != "all_valid" for flags in told for flag in flags)
            colors = tuple(c.name for c in colors_of(src, has_alpha=has_alpha))
            dtype = str(src.dtypes[0]) if src.count else "none"
            band = any(flags == [MaskFlags.per_dataset] for flags in src.mask_flag_enums)
            image = len(told) < src.count and not has_alpha
            check_transform(src.transform, src.shape, path)
            crs = placed_crs(src.crs)
            return Part(path, crs, src.transform, src.shape, dtype, colors, src.nodata, masked, band, image)
    except GDAL_ERRORS as err:
        raise NotARasterError(f"{path} cannot be opened as a raster ({err}). Check it with `gdalinfo`.") from err


def _offset(first: Part, part: Part) -> tuple[int, int]:
    """Return column and row of a part's first pixel in the grid of the first part.

    Raises:
        SceneMismatchError: If the two do not share one grid, or differ in bands or type.
    """
    here, there = Path(part.path).name, Path(first.path).name

    def mismatch(found: str, expected: str) -> SceneMismatchError:
        return SceneMismatchError(
            f"{here} has {found}; {there} has {expected}. Files of one scene share CRS, pixel size, bands and type: "
            "run each as a scene of its own, without `mosaic`, or bring them to one grid with `gdalwarp`."
        )

    facts = {
        "CRS": (first.crs, part.crs),
        "bands": (len(first.colors), len(part.colors)),
        "alpha bands": (first.colors.count("alpha"), part.colors.count("alpha")),
        "bands in the order": (_order(first), _order(part)),
        "pixel type": (first.dtype, part.dtype),
        "nodata value": (str(first.nodata), str(part.nodata)),
    }
    for fact, (expected, found) in facts.items():
        if expected != found:
            raise mismatch(f"{fact} {found}", f"{fact} {expected}")
    linear = [(a, b) for a, b in zip(first.transform[:6], part.transform[:6], strict=True)]
    sizes = [pair for i, pair in enumerate(linear) if i not in (2, 5)]
    tolerance = OFF_GRID_PX / max(*first.shape, *part.shape) * max(abs(a) for a, _ in sizes)
    if any(abs(a - b) > tolerance for a, b in sizes):
        raise mismatch(f"pixels {tuple(part.transform)[:6]}", f"pixels {tuple(first.transform)[:6]}")
    if first.transform.is_identity or part.transform.is_identity:
        raise SceneMismatchError(
            f"{here} has no georeference, so its place beside {there} is unknown. "
            "Run the pictures without `mosaic`, each as a scene of its own, or georeference them first."
        )
    col, row = ~first.transform @ (part.transform.c, part.transform.f)
    if max(abs(col - round(col)), abs(row - round(row))) > OFF_GRID_PX:
        raise SceneMismatchError(
            f"{here} lies {col - round(col):.2f}, {row - round(row):.2f} pixels off the grid of "
            f"{there}; files of one scene share one grid. Align them with `gdalwarp -tap`."
        )
    return round(col), round(row)


def _order(part: Part) -> tuple[int, ...]:
    return order_bands([ColorInterp[color] for color in part.colors])


def _source(part: Part, col: int, row: int, band: str) -> str:
    path = vsi_path(part.path)
    if "://" not in path and not path.startswith("/vsi"):
        path = str(Path(path).resolve())
    is_mask = band == "mask,1"
    left_out = 0 if is_mask else part.nodata  # a later file's nodata must not hide an earlier file's data
    nodata = f"<NODATA>{left_out}</NODATA>" if left_out is not None else ""
    mask = "<UseMaskBand>true</UseMaskBand>" if part.masked and not nodata else ""
    if is_mask and part.alpha_is_image:  # GDAL would take the image for the mask: 255 everywhere instead
        band, nodata = "1", "<ScaleOffset>255</ScaleOffset><ScaleRatio>0</ScaleRatio>"
    height, width = part.shape
    rect = f'xSize="{width}" ySize="{height}"'
    return (
        f'<ComplexSource><SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
        f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {rect}/><DstRect xOff="{col}" yOff="{row}" {rect}/>'
        f"{nodata}{mask}</ComplexSource>"
    )
