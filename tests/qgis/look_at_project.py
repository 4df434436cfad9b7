"""Run by QGIS's own Python: open projects, draw what is visible, and write down what QGIS sees.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 look_at_project.py REQUEST.json FACTS.json

The request maps names to projects, and names a folder `pictures`: all visible layers together are drawn into NAME.png,
and each layer alone into NAME-LAYER.png, over the extent that the project opens with.
"""

import json
import os
import sys
from pathlib import Path

from qgis.core import QgsApplication, QgsMapRendererSequentialJob, QgsMapSettings, QgsProject, QgsRenderContext
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

PICTURE_PX = 400


def look(path: str, name: str, pictures: Path) -> dict:
    project = QgsProject()
    assert project.read(path), f"QGIS does not open {path}: {project.error()}"
    extent = project.viewSettings().defaultViewExtent()
    nodes = project.layerTreeRoot().findLayers()
    facts = {
        "title": project.title(),
        "crs": project.crs().authid(),
        "wkt": project.crs().toWkt(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "groups": [group.name() for group in project.layerTreeRoot().findGroups()],
        "layers": [layer_facts(node) for node in nodes],
    }
    layers = [node.layer() for node in nodes if node.layer() is not None]
    shown = [node.layer() for node in nodes if node.layer() is not None and node.isVisible()]
    for part, title in ((shown, name), *(([layer], f"{name}-{layer.name()}") for layer in layers)):
        settings = QgsMapSettings()
        settings.setLayers(part)
        settings.setBackgroundColor(QColor("white"))
        settings.setOutputSize(QSize(PICTURE_PX, PICTURE_PX))
        settings.setDestinationCrs(project.crs())
        settings.setTransformContext(project.transformContext())
        settings.setExtent(extent)
        job = QgsMapRendererSequentialJob(settings)
        job.start()
        job.waitForFinished()
        assert job.renderedImage().save(str(pictures / f"{title.replace('/', '_')}.png")), title
    return facts


def layer_facts(node) -> dict:
    layer = node.layer()
    if layer is None or not layer.isValid():
        return {"name": node.name(), "resolves": False}
    renderer = layer.renderer()
    if hasattr(renderer, "legendSymbolItems") and not hasattr(layer, "bandCount"):
        legend = [item.label() for item in renderer.legendSymbolItems()]
        colors = sorted({symbol.color().name() for symbol in renderer.symbols(QgsRenderContext())})
    else:
        legend, colors = [item[0] for item in renderer.legendSymbologyItems()], []
    return {
        "name": node.name(),
        "resolves": True,
        "visible": node.isVisible(),
        "group": node.parent().name(),
        "source": layer.source(),
        "crs": layer.crs().authid(),
        "renderer": renderer.type(),
        "legend": legend,
        "colors": colors,
    }


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    application = QgsApplication([], False)
    application.initQgis()
    pictures = Path(request["pictures"])
    facts = {name: look(path, name, pictures) for name, path in request["projects"].items()}
    Path(sys.argv[2]).write_text(json.dumps(facts))
    sys.stdout.flush()
    os._exit(0)  # QGIS may crash while Qt takes itself apart: everything is written by now


main()
