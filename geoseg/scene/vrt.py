"""Several rasters of one grid as one: a GDAL virtual raster, built in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geoseg.errors import NotARasterError, SceneMismatchError

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
    "uint64": "UInt64",
    "int64": "Int64",
}
OFF_GRID_PX = 0.05
"""How far a file may lie off the common grid, pixels."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is needed of one file of a mosaic."""

    path: str
    crs: CRS | None
    transform: Affine
    shape: tuple[int, int]
    dtype: str
    colors: tuple[str, ...]
    nodata: float | None
    masked: bool


def mosaic_vrt(paths: Sequence[str]) -> str:
    """Build a VRT over files that share one grid; a later file lies over an earlier one.

    Args:
        paths: Files or URLs.

    Returns:
        The VRT's XML, which rasterio opens like a path. Pixels that no file covers are nodata.

    Raises:
        NotARasterError: If a file cannot be opened, or holds no bands of real numbers.
        SceneMismatchError: If CRS, pixel size, bands or type differ, or a file lies between the pixels of the first.
    """
    parts = [_read_header(path) for path in paths]
    if parts[0].dtype not in GDAL_TYPES:
        raise NotARasterError(
            f"{paths[0]} has pixels of type {parts[0].dtype}; real numbers are expected. "
            "Convert it with `gdal_translate`."
        )
    for part in parts[1:]:
        _check_same(parts[0], part)
    offsets = [_offset(parts[0], part) for part in parts]
    left, top = min(c for c, _ in offsets), min(r for _, r in offsets)
    width = max(c + p.shape[1] for (c, _), p in zip(offsets, parts, strict=True)) - left
    height = max(r + p.shape[0] for (_, r), p in zip(offsets, parts, strict=True)) - top
    placed = [(part, c - left, r - top) for part, (c, r) in zip(parts, offsets, strict=True)]
    return _xml(parts[0], parts[0].transform @ Affine.translation(left, top), (height, width), placed)


def _read_header(path: str) -> Part:
    try:
        with rasterio.open(path) as src:
            masked = any(flag.name != "all_valid" for flags in src.mask_flag_enums for flag in flags)
            colors = tuple(c.name for c in src.colorinterp)
            dtype = str(src.dtypes[0]) if src.count else "none"
            return Part(path, src.crs, src.transform, src.shape, dtype, colors, src.nodata, masked)
    except RasterioError as err:
        raise NotARasterError(f"{path} cannot be opened as a raster ({err}). Check it with `gdalinfo`.") from err


def _check_same(first: Part, part: Part) -> None:
    facts = {
        "CRS": (first.crs, part.crs),
        "bands": (len(first.colors), len(part.colors)),
        "alpha bands": (first.colors.count("alpha"), part.colors.count("alpha")),
        "pixel type": (first.dtype, part.dtype),
        "nodata value": (str(first.nodata), str(part.nodata)),
    }
    for fact, (expected, found) in facts.items():
        if expected != found:
            raise _mismatch(part, first, f"{fact} {found}", f"{fact} {expected}")
    linear = [(a, b) for a, b in zip(first.transform[:6], part.transform[:6], strict=True)]
    sizes = [pair for i, pair in enumerate(linear) if i not in (2, 5)]
    tolerance = OFF_GRID_PX / max(*first.shape, *part.shape) * max(abs(a) for a, _ in sizes)
    if any(abs(a - b) > tolerance for a, b in sizes):
        raise _mismatch(part, first, f"pixels {tuple(part.transform)[:6]}", f"pixels {tuple(first.transform)[:6]}")
    if first.transform.is_identity or part.transform.is_identity:
        raise SceneMismatchError(
            f"{Path(part.path).name} has no georeference, so its place beside {Path(first.path).name} is unknown. "
            "Run the pictures without `mosaic`, each as a scene of its own, or georeference them first."
        )


def _mismatch(part: Part, first: Part, found: str, expected: str) -> SceneMismatchError:
    return SceneMismatchError(
        f"{Path(part.path).name} has {found}; {Path(first.path).name} has {expected}. Files of one scene share CRS, "
        "pixel size, bands and type: run each as a scene of its own, without `mosaic`, or bring them to one grid with "
        "`gdalwarp`."
    )


def _offset(first: Part, part: Part) -> tuple[int, int]:
    """Return column and row of a part's first pixel in the grid of the first part."""
    col, row = ~first.transform @ (part.transform.c, part.transform.f)
    if max(abs(col - round(col)), abs(row - round(row))) > OFF_GRID_PX:
        raise SceneMismatchError(
            f"{Path(part.path).name} lies {col - round(col):.2f}, {row - round(row):.2f} pixels off the grid of "
            f"{Path(first.path).name}; files of one scene share one grid. Align them with `gdalwarp -tap`."
        )
    return round(col), round(row)


def _xml(first: Part, transform: Affine, shape: tuple[int, int], placed: list[tuple[Part, int, int]]) -> str:
    srs = f"<SRS>{escape(first.crs.to_wkt())}</SRS>" if first.crs is not None else ""
    bands = "".join(_band(i, first, placed) for i in range(1, len(first.colors) + 1))
    mask = "" if first.nodata is not None or "alpha" in first.colors else _mask(placed)
    return (
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">{srs}'
        f"<GeoTransform>{', '.join(repr(v) for v in transform.to_gdal())}</GeoTransform>{bands}{mask}</VRTDataset>"
    )


def _band(index: int, first: Part, placed: list[tuple[Part, int, int]]) -> str:
    nodata = f"<NoDataValue>{first.nodata}</NoDataValue>" if first.nodata is not None else ""
    sources = "".join(_source(part, col, row, str(index)) for part, col, row in placed)
    color = first.colors[index - 1].capitalize()
    return (
        f'<VRTRasterBand dataType="{GDAL_TYPES[first.dtype]}" band="{index}">{nodata}'
        f"<ColorInterp>{color}</ColorInterp>{sources}</VRTRasterBand>"
    )


def _mask(placed: list[tuple[Part, int, int]]) -> str:
    """A mask band: a file's own mask where it has one, all valid where it lies, nodata between the files."""
    sources = "".join(_source(part, col, row, "mask,1") for part, col, row in placed)
    return f'<MaskBand><VRTRasterBand dataType="Byte">{sources}</VRTRasterBand></MaskBand>'


def _source(part: Part, col: int, row: int, band: str) -> str:
    path = part.path  # as GDAL calls it
    if path.startswith(("http://", "https://")):
        path = f"/vsicurl/{path}"
    elif path.startswith("s3://"):
        path = f"/vsis3/{path[5:]}"
    elif "://" not in path and not path.startswith("/vsi"):
        path = str(Path(path).resolve())
    is_mask = band == "mask,1"
    left_out = 0 if is_mask else part.nodata  # a later file's nodata must not hide an earlier file's data
    nodata = f"<NODATA>{left_out}</NODATA>" if left_out is not None else ""
    mask = "<UseMaskBand>true</UseMaskBand>" if part.masked and not nodata else ""
    height, width = part.shape
    rect = f'xSize="{width}" ySize="{height}"'
    return (
        f'<ComplexSource><SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
        f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {rect}/><DstRect xOff="{col}" yOff="{row}" {rect}/>'
        f"{nodata}{mask}</ComplexSource>"
    )
