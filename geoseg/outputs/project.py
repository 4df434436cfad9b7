"""A QGIS project of a result, written without QGIS: the scene below, what was found above, styled and named in words.

Paths are relative to the result folder, so that it can be moved and zipped. The project is a function of the report and
of where the scene lies as seen from the folder: the same result gives the same bytes.

A `.qgz` is a zip with the project as XML. What QGIS 3.22 reads of it was found by trying: ids of raster layers must be
long, and WKT is enough for a CRS, of which it finds the code itself.
"""

import os
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from geoseg.io.aside import reported, write_aside
from geoseg.io.remote import is_remote, public_url, vsi_path
from geoseg.outputs.gdal import LAYER
from geoseg.outputs.rasters import MASK_COLORS
from geoseg.outputs.styles import class_qml, footprint_qml, mask_qml, probability_qml
from geoseg.scene import Levels
from geoseg.vectorize.ground import official_crs

PROJECT = "project.qgz"

MOST_SCENES = 100
"""Scenes of a mosaic that become layers: QGIS opens each of them when it opens the project."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""When the file in the zip was made, as far as the zip says: the first moment that it can."""

HEAD = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot hold, such as control characters in a file's name."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of the project.

    Attributes:
        id: Its id.
        name: Its name in the legend.
        source: What QGIS opens.
        crs: Its CRS in any form that pyproj takes, or None.
        style: Elements that say how it is drawn.
        is_vector: Whether it holds polygons.
        is_visible: Whether it is drawn when the project is opened.
        nodata: `(bands, value)` of a raster whose file does not declare its nodata value.
    """

    id: str
    name: str
    source: str
    crs: str | None
    style: Sequence[ET.Element] = ()
    is_vector: bool = False
    is_visible: bool = True
    nodata: tuple[int, float] | None = None


def write_project(report: Mapping[str, Any], names: Collection[str], folder: Path, out: Path) -> Path:
    """Write `project.qgz` for a result.

    Args:
        report: The contents of `run.json`.
        names: The files of the result.
        folder: Where the project is written.
        out: The folder where they will lie, from which the scene is linked.

    Returns:
        The path.

    Raises:
        OutputError: If the file cannot be written.
    """
    scene = report["scene"]
    found, shown = list(_result_layers(report, names)), list(_scene_layers(report, out))
    scenes = "Scene" if len(shown) == 1 else "Scenes"
    count = len(scene.get("mosaic") or scene["paths"])
    if count > len(shown):
        scenes = f"Scenes (the first {len(shown):,} of {count:,})"
    document = _project(scene, {"Result": found, scenes: shown})
    ET.indent(document, " ")
    entry = zipfile.ZipInfo("project.qgs", date_time=EPOCH)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    path = folder / PROJECT
    with write_aside(path) as aside, reported(path), zipfile.ZipFile(aside, "w") as file:
        file.writestr(entry, HEAD + ET.tostring(document, encoding="utf-8"))
    return path


def link_to(location: str, out: Path) -> str:
    """Return how a project in a folder names a file: relatively where possible, and a URL without its secrets."""
    if is_remote(location):
        return vsi_path(public_url(location))
    if location.startswith("/vsi"):
        return location
    try:
        relative = os.path.relpath(location, out).replace(os.sep, "/")
    except ValueError:  # on another drive of Windows
        return Path(location).absolute().as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def outlines_in(files: Collection[str]) -> str | None:
    """Return the file of footprints that a project shows, if there is one; QGIS 3.22 reads no GeoParquet."""
    return next((name for name in ("buildings.gpkg", "buildings.fgb") if name in files), None)


def _result_layers(report: Mapping[str, Any], files: Collection[str]) -> Iterator[_Layer]:
    """Yield the files of a result, the topmost first."""
    model, crs = report["model"], report["scene"]["crs"]
    target = str(model["target"])
    names = ("background" if target == "building" else "other", target)
    outlines = outlines_in(files)
    if outlines is not None:
        title, source = f"{target} outlines by confidence".capitalize(), f"./{outlines}|layername={LAYER}"
        yield _Layer("geoseg_outlines_layer", title, source, crs, _style(footprint_qml()), is_vector=True)
    rasters = [
        ("probability", f"Probability of {target}", probability_qml(target), True),
        ("classes", "Classes", _classes_qml(model), False),
        ("mask", f"Mask: {target} or not", mask_qml(names, MASK_COLORS), False),
        ("interior", f"Probability of {target} interior", probability_qml(f"{target} interior"), False),
    ]
    for stem, title, qml, is_visible in rasters:
        if f"{stem}.tif" in files:
            yield _Layer(
                f"geoseg_{stem}_layer", title, f"./{stem}.tif", crs, _style(qml) if qml else (), is_visible=is_visible
            )


def _classes_qml(model: Mapping[str, Any]) -> str | None:
    """Return the style of `classes.tif`; None in reports of before, without which QGIS takes the file's own colors."""
    names, colors = model.get("classes") or (), model.get("class_colors") or ()
    return class_qml(names, colors) if names and len(names) == len(colors) else None


def _scene_layers(report: Mapping[str, Any], out: Path) -> Iterator[_Layer]:
    """Yield the files of the scenes, the topmost first."""
    scene = report["scene"]
    own = scene | {"nodata": (report.get("settings") or {}).get("nodata"), "band_count": scene["native"]["bands"]}
    parts = [part for part in scene.get("mosaic") or () if part.get("paths")] or [own]
    files = [  # of several files of one grid, a later one lies over an earlier one
        (part, path, alpha)
        for part in parts
        for path, alpha in reversed(list(zip_longest(part["paths"], part.get("alpha_bands") or ())))
    ]
    for number, (part, path, alpha) in enumerate(files[:MOST_SCENES]):
        name = str(part["name"]) if len(part["paths"]) == 1 else Path(public_url(path)).stem
        nodata = None if part.get("nodata") is None else (int(part["band_count"]), float(part["nodata"]))
        style = _image(part["bands"], part.get("levels"), alpha)
        yield _Layer(f"geoseg_scene_{number:03d}_layer", name, link_to(path, out), part["crs"], style, nodata=nodata)


def _image(bands: Sequence[int], levels: Levels | None, alpha: int | None) -> list[ET.Element]:
    """Return how a scene is drawn: its first three bands, or the first in gray, in the levels that the model saw."""
    is_color = len(bands) >= 3
    own = {"type": "multibandcolor" if is_color else "singlebandgray", "opacity": "1", "alphaBand": str(alpha or -1)}
    names = ("red", "green", "blue") if is_color else ("gray",)
    pipe = ET.Element("pipe")
    numbers = {f"{name}Band": str(band) for name, band in zip(names, bands, strict=False)}
    renderer = ET.SubElement(pipe, "rasterrenderer", own | numbers)
    for i, name in enumerate(names):
        low, high = levels[i] if levels else (0, 255)
        contrast = ET.SubElement(renderer, f"{name}ContrastEnhancement" if is_color else "contrastEnhancement")
        ET.SubElement(contrast, "minValue").text = repr(low)
        ET.SubElement(contrast, "maxValue").text = repr(high)
        ET.SubElement(contrast, "algorithm").text = "StretchToMinimumMaximum" if levels else "NoEnhancement"
    return [pipe]


def _style(qml: str) -> list[ET.Element]:
    """Return the elements of a QML document that a project holds for a layer."""
    return list(ET.fromstring(qml))


def _project(scene: Mapping[str, Any], groups: Mapping[str, Sequence[_Layer]]) -> ET.Element:
    """Return a project of groups of layers, the topmost first."""
    root = ET.Element("qgis", {"version": "3.22.0", "projectname": _text(scene["name"])})
    ET.SubElement(root, "homePath", {"path": ""})
    ET.SubElement(root, "title").text = _text(scene["name"])
    ET.SubElement(root, "projectCrs").append(_srs(scene["crs"]))
    tree, layers = ET.SubElement(root, "layer-tree-group"), ET.SubElement(root, "projectlayers")
    for title, group in groups.items():
        branch = ET.SubElement(tree, "layer-tree-group", {"name": title, "checked": "Qt::Checked", "expanded": "1"})
        for layer in group:
            name = _text(layer.name)
            shown = {"checked": "Qt::Checked" if layer.is_visible else "Qt::Unchecked", "expanded": "1"}
            if not layer.is_visible:
                shown["expanded"] = "0"
            ET.SubElement(branch, "layer-tree-layer", {"id": layer.id, "name": name} | shown)
            layers.append(_map_layer(layer, name))
    canvas = ET.SubElement(root, "mapcanvas", {"name": "theMapCanvas"})
    bounds = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(repr, map(float, scene["grid"]["bounds"])), strict=True))
    extent = ET.SubElement(canvas, "extent")
    for key, value in bounds.items():
        ET.SubElement(extent, key).text = value
    ET.SubElement(canvas, "rotation").text = "0"
    ET.SubElement(canvas, "destinationsrs").append(_srs(scene["crs"]))
    ET.SubElement(ET.SubElement(root, "ProjectViewSettings"), "DefaultViewExtent", bounds).append(_srs(scene["crs"]))
    properties = ET.SubElement(root, "properties")
    ET.SubElement(ET.SubElement(properties, "Paths"), "Absolute", {"type": "bool"}).text = "false"
    enabled = ET.SubElement(ET.SubElement(properties, "SpatialRefSys"), "ProjectionsEnabled", {"type": "int"})
    enabled.text = str(int(scene["crs"] is not None))
    return root


def _map_layer(layer: _Layer, name: str) -> ET.Element:
    kind = {"type": "vector", "geometry": "Polygon"} if layer.is_vector else {"type": "raster"}
    element = ET.Element("maplayer", kind | {"hasScaleBasedVisibilityFlag": "0"})
    ET.SubElement(element, "id").text = layer.id
    ET.SubElement(element, "datasource").text = _text(layer.source)
    ET.SubElement(element, "layername").text = name
    ET.SubElement(element, "srs").append(_srs(layer.crs))
    provider = ET.SubElement(element, "provider", {"encoding": "UTF-8"} if layer.is_vector else {})
    provider.text = "ogr" if layer.is_vector else "gdal"
    if layer.nodata is not None:
        bands, value = layer.nodata
        listed = ET.SubElement(element, "noData")
        for band in range(1, bands + 1):
            own = ET.SubElement(listed, "noDataList", {"bandNo": str(band), "useSrcNoData": "0"})
            ET.SubElement(own, "noDataRange", {"min": repr(value), "max": repr(value)})
    element.extend(layer.style)
    return element


def _srs(crs: str | None) -> ET.Element:
    """Return a CRS as QGIS stores it; one that is not valid for None."""
    element, known = ET.Element("spatialrefsys", {"nativeFormat": "Wkt"}), official_crs(crs)
    ET.SubElement(element, "wkt").text = known.to_wkt() if known is not None else ""
    return element


def _text(value: object) -> str:
    """Return a text without what XML cannot hold."""
    return NO_XML.sub("\ufffd", str(value))
