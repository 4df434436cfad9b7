"""Run by QGIS's own Python: open what geoseg wrote, render it, and write down what QGIS sees.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 look.py REQUEST.json FACTS.json

The request names `vectors` (GeoPackages), `rasters` and a folder `pictures`; each layer is drawn alone into a PNG, over
its own extent. `over` names vectors that are drawn over the extent of a raster instead.
"""

import json
import os
import sys
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRenderContext,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

PICTURE_PX = 200


def vector_facts(path: str) -> dict:
    layer = QgsVectorLayer(f"{path}|layername=buildings", Path(path).stem, "ogr")
    assert layer.isValid(), f"QGIS does not open {path}"
    return {
        **_layer_facts(layer),
        "feature_count": layer.featureCount(),
        "geometries_valid": all(f.geometry().isGeosValid() for f in layer.getFeatures()),
        "area_m2": [f["area_m2"] for f in layer.getFeatures()],
        "fields": [field.name() for field in layer.fields()],
        "renderer": layer.renderer().type(),
        "colors": sorted({s.color().name() for s in layer.renderer().symbols(QgsRenderContext())}),
    }, layer


def raster_facts(path: str) -> dict:
    layer = QgsRasterLayer(path, Path(path).stem)
    assert layer.isValid(), f"QGIS does not open {path}"
    provider = layer.dataProvider()
    block = provider.block(1, layer.extent(), layer.width(), layer.height())
    return {
        **_layer_facts(layer),
        "shape": [layer.height(), layer.width()],
        "nodata": provider.sourceNoDataValue(1) if provider.sourceHasNoDataValue(1) else None,
        "scale": provider.bandScale(1),
        "renderer": layer.renderer().type(),
        "legend": [[c.value, c.label, c.color.name()] for c in getattr(layer.renderer(), "classes", list)()],
        "color_table": {item.value: item.color.name() for item in provider.colorTable(1)},
        "first_row": [None if block.isNoData(0, col) else block.value(0, col) for col in range(layer.width())],
    }, layer


def _layer_facts(layer) -> dict:
    extent = layer.extent()
    return {
        "crs": layer.crs().authid(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
    }


def render(layer, path: Path, extent) -> None:
    """Draw a layer alone on white, over exactly an extent."""
    QgsProject.instance().addMapLayer(layer)
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setBackgroundColor(QColor("white"))
    settings.setOutputSize(QSize(PICTURE_PX, PICTURE_PX))
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(extent)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    assert job.renderedImage().save(str(path)), f"QGIS cannot write {path}"


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    application = QgsApplication([], False)
    application.initQgis()
    facts = {}
    for look, paths in ((vector_facts, request["vectors"]), (raster_facts, request["rasters"])):
        for path in paths:
            name = Path(path).name
            facts[name], layer = look(path)
            if not layer.extent().isEmpty():
                below = request["over"].get(path)
                extent = QgsRasterLayer(below, "below").extent() if below else layer.extent()
                render(layer, Path(request["pictures"]) / f"{name}.png", extent)
    Path(sys.argv[2]).write_text(json.dumps(facts))
    sys.stdout.flush()
    os._exit(0)  # QGIS may crash while Qt takes itself apart: everything is written by now


main()
