"""A result as a STAC Item, and the results of a batch as a static Collection.

Both are functions of the reports alone: the same result gives the same bytes. Links between files of results are
relative, so that folders can be moved, zipped and served. https://github.com/radiantearth/stac-spec, version 1.1.0
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.errors import MissingCRSError
from geoseg.inference import NODATA, PROBABILITY_ONE
from geoseg.io.aside import write_json
from geoseg.io.remote import is_remote, public_url
from geoseg.io.reproject import in_degrees
from geoseg.outputs.project import link_to

ITEM, COLLECTION = "item.json", "collection.json"

VERSION = "1.1.0"
EXTENSIONS = {
    name: f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
    for name, version in {
        "projection": "2.0.0",
        "raster": "2.0.0",
        "classification": "2.0.0",
        "file": "2.1.0",
        "processing": "1.2.0",
    }.items()
}

SHA256_MULTIHASH = "1220"
"""Prefix of a SHA-256 of 32 bytes: file:checksum is a multihash, https://github.com/multiformats/multihash."""

DEGREE_DIGITS = 8

MOST_LINKS = 100
"""Scenes of a mosaic that an Item links."""

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".pmtiles": "application/vnd.pmtiles",
    ".png": "image/png",
    ".qgz": "application/zip",
    ".qml": "application/xml",
    ".html": "text/html",
    ".xml": "application/xml",
    ".json": "application/json",
}

FOOTPRINTS = (".gpkg", ".parquet", ".fgb", ".geojson", ".pmtiles")


def write_item(report: Mapping[str, Any], folder: Path, out: Path | None) -> Path:
    """Write `item.json` for a result.

    Args:
        report: See `describe_result`.
        folder: Where it is written.
        out: See `describe_result`.

    Raises:
        OutputError: If the file cannot be written.
    """
    return write_json(folder / ITEM, describe_result(report, out))


def describe_result(report: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """Return a result as a STAC Item.

    The time of a scene is seldom known: `datetime` is when the result was made, as is `created`.

    Args:
        report: The contents of `run.json`, the list of the other files included.
        out: The folder of a local result, from which local scenes are linked; None for one in a bucket.
    """
    scene, model = report["scene"], report["model"]
    made, target = _utc(report["started"]), str(model["target"])
    shape, placed = _extent(report), _projection(report)
    extensions = [url for name, url in EXTENSIONS.items() if placed or name != "projection"]
    gsd = scene["grid"]["gsd_m"]
    software = {"geoseg": str(report["geoseg"]), str(model["name"]): str(model["version"])}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": extensions,
        "id": str(scene["name"]),
        "geometry": json.loads(shapely.to_geojson(shape)) if shape is not None else None,
        "properties": {
            "datetime": made,
            "created": made,
            "title": f"{target.capitalize()} footprints: {scene['name']}",
            "description": f"Probability, mask and outlines of {target}, by geoseg and the model {model['name']}.",
            **({"gsd": round(float(max(gsd)), 6)} if gsd else {}),
            **placed,
            "processing:lineage": f"{model['name']} {model['version']} on {scene['name']}, outlined from a probability "
            f"of {report['threshold']:g}",
            "processing:software": software,
            "geoseg:model": {name: model.get(name) for name in ("name", "version", "key", "license", "target")},
            "geoseg:threshold": report["threshold"],
            "geoseg:buildings": report["counts"]["buildings"],
            "geoseg:area_m2": report["area_m2"],
        },
        "links": list(_links(scene, out)),
        "assets": dict(_assets(report)),
    }
    if shape is not None:
        item["bbox"] = _bbox(shape)
    return item


def _utc(text: str) -> str:
    """Return a time of a report as STAC wants it."""
    return datetime.fromisoformat(text).astimezone(UTC).isoformat().replace("+00:00", "Z")


def _corners(report: Mapping[str, Any]) -> shapely.Polygon:
    """Return the outline of the grid in its own CRS."""
    grid = report["scene"]["grid"]
    height, width = grid["shape"]
    transform = Affine(*grid["transform"])
    return shapely.Polygon([transform @ corner for corner in ((0, 0), (0, height), (width, height), (width, 0))])


def _extent(report: Mapping[str, Any]) -> Any:
    """Return the ground of a result in longitude and latitude; None where it has no place on Earth."""
    crs = report["scene"]["crs"]
    if crs is None:
        return None
    try:
        (shape,) = in_degrees(np.array([_corners(report)], object), CRS.from_user_input(crs))
    except MissingCRSError:
        return None
    return shapely.orient_polygons(shapely.transform(shape, lambda xy: np.round(xy, DEGREE_DIGITS)))


def _bbox(shape: Any) -> list[float]:
    """Return west, south, east, north; of what crosses the antimeridian, west is greater (RFC 7946, 5.2)."""
    west, south, east, north = shape.bounds
    if (west, east) == (-180, 180) and len(shapely.get_parts(shape)) > 1:
        parts = shapely.bounds(shapely.get_parts(shape))
        west, east = parts[parts[:, 2] == 180, 0].min(), parts[parts[:, 0] == -180, 2].max()
    return [float(west), float(south), float(east), float(north)]


def _projection(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the projection extension; none without a CRS."""
    grid, text = report["scene"]["grid"], report["scene"]["crs"]
    if text is None:
        return {}
    crs = CRS.from_user_input(text)
    code = crs.to_authority()
    named = {"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": crs.to_wkt()}
    return {
        **named,
        "proj:bbox": [float(side) for side in grid["bounds"]],
        "proj:shape": list(grid["shape"]),
        "proj:transform": [float(number) for number in grid["transform"]],
    }


def _links(scene: Mapping[str, Any], out: Path | None) -> Iterator[dict[str, Any]]:
    """Yield links to the files of the scene, without secrets."""
    for path in scene["paths"][:MOST_LINKS]:
        if is_remote(path) or path.startswith("/vsi"):
            yield {"rel": "via", "href": public_url(path), "title": "Scene"}
        elif out is not None:
            yield {"rel": "via", "href": link_to(path, out), "title": "Scene"}


def _assets(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the files of the result."""
    model = report["model"]
    target, names = str(model["target"]), [str(name) for name in model["classes"]]
    ground = "background" if target == "building" else "other"
    rasters: dict[str, tuple[str, dict[str, Any]]] = {
        "probability": (f"Probability of {target}", {"raster:scale": 1 / PROBABILITY_ONE}),
        "interior": (f"Probability of {target} interior", {"raster:scale": 1 / PROBABILITY_ONE}),
        "mask": (f"Mask: {target} or not", {"classification:classes": _classes((ground, target))}),
        "classes": ("Most likely class", {"classification:classes": _classes(names)}),
    }
    gsd = report["scene"]["grid"]["gsd_m"]
    for name, facts in sorted(report["files"].items()):
        if name == ITEM:
            continue
        path = PurePosixPath(name)
        asset: dict[str, Any] = {"href": f"./{name}", "type": MEDIA_TYPES[path.suffix], "roles": ["metadata"]}
        if path.suffix == ".tif":
            title, more = rasters[path.stem]
            resolution = {"raster:spatial_resolution": round(float(max(gsd)), 6)} if gsd else {}
            asset |= {"title": title, "roles": ["data"], "data_type": "uint8", "nodata": NODATA, **more, **resolution}
        elif path.suffix in FOOTPRINTS:
            asset |= {"title": f"Outlines of {target}", "roles": ["data"]}
        elif path.suffix == ".png":
            asset |= {"title": "Image and prediction", "roles": ["overview"]}
        key = path.stem if path.suffix in (".tif", ".png") else name.replace(".", "-")
        yield key, asset | {"file:size": facts["bytes"], "file:checksum": SHA256_MULTIHASH + facts["sha256"]}
    yield "report", {"href": "./run.json", "type": MEDIA_TYPES[".json"], "title": "Report", "roles": ["metadata"]}


def _classes(names: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
    """Return the values of a raster; names of the extension have no spaces."""
    return [
        {"value": value, "name": "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)}
        | {"description": name}
        for value, name in enumerate(names)
    ]


def describe_collection(name: str, items: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results in the folder of a batch as a static STAC Collection.

    Args:
        name: Name of the folder.
        items: The Items by the names of their folders; one at least.
    """
    times = sorted(str(item["properties"]["datetime"]) for item in items.values())
    boxes = [item["bbox"] for item in items.values() if item.get("bbox")]
    whole = [-180.0, -90.0, 180.0, 90.0]
    if boxes and all(box[0] <= box[2] for box in boxes):
        west, south, east, north = zip(*boxes, strict=True)
        whole = [min(west), min(south), max(east), max(north)]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "id": name or "results",
        "title": f"Results of geoseg: {name}",
        "description": f"{len(items)} results of geoseg, an Item for each scene.",
        "license": "other",
        "extent": {"spatial": {"bbox": [whole]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [
            {"rel": "item", "href": f"./{folder}/{ITEM}", "type": "application/geo+json", "title": str(item["id"])}
            for folder, item in sorted(items.items())
        ],
    }
