"""The algorithms of geoseg in the Processing toolbox."""

from __future__ import annotations  # Python 3.9, which comes with QGIS 3.22 on Windows

import hashlib
import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingOutputFile,
    QgsProcessingOutputNumber,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingProvider,
    QgsProject,
    QgsVectorFileWriter,
)

from geoseg_qgis.command import CommandError, find_geoseg, run_geoseg

PROGRAM = "GEOSEG_PROGRAM"
OUTLINES = ("regular", "simple", "raw")


class Plugin:
    """The plugin: it registers the provider, also in `qgis_process`."""

    def __init__(self) -> None:
        """Start without a provider."""
        self.provider: Provider | None = None

    def initProcessing(self) -> None:  # noqa: N802
        """Register the provider; `qgis_process` calls only this."""
        self.provider = Provider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:  # noqa: N802
        """Register the provider in QGIS."""
        self.initProcessing()

    def unload(self) -> None:
        """Remove the provider."""
        QgsApplication.processingRegistry().removeProvider(self.provider)


class Provider(QgsProcessingProvider):
    """The group geoseg in the toolbox."""

    def id(self) -> str:
        """Return the prefix of the algorithms."""
        return "geoseg"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "geoseg"

    def load(self) -> bool:
        """Add the setting with the program to Processing's options."""
        from processing.core.ProcessingConfig import ProcessingConfig, Setting

        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(Setting(self.name(), PROGRAM, "Path of the program geoseg", ""))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def loadAlgorithms(self) -> None:  # noqa: N802
        """Add the algorithms."""
        for kind in (ExtractBuildings, FineTune, Evaluate, Compare):
            self.addAlgorithm(kind())


class Algorithm(QgsProcessingAlgorithm):
    """What the algorithms have in common."""

    ID, NAME, HELP = "", "", ""

    def name(self) -> str:
        """Return the id."""
        return self.ID

    def displayName(self) -> str:  # noqa: N802
        """Return the name in the toolbox."""
        return self.NAME

    def shortHelpString(self) -> str:  # noqa: N802
        """Return the help."""
        return self.HELP

    def createInstance(self) -> Algorithm:  # noqa: N802
        """Return another one."""
        return type(self)()

    def folder(self, parameters: Any, context: Any) -> str:
        """Return the result folder."""
        return str(self.parameterAsString(parameters, "OUTPUT", context))

    def image(self, parameters: Any, context: Any) -> str:
        """Return the file or URL of the raster."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"The layer {layer.name()} is of the kind {layer.providerType()}; a raster that GDAL reads is "
                "expected. Save it as GeoTIFF first (Export > Save As)."
            )
        return str(layer.source())

    def polygons(self, parameters: Any, name: str, context: Any) -> str | None:
        """Write the features of a layer (of a selection, only these) to a file for geoseg; None without a layer.

        The file lies beside the result folder. Its name tells its contents, and it is not written again: geoseg
        continues a run if it has the same files.
        """
        source = self.parameterAsSource(parameters, name, context)
        if source is None:
            return None
        crs, features = source.sourceCrs(), list(source.getFeatures())
        content = hashlib.sha256(crs.toWkt().encode())
        for feature in features:
            content.update(feature.geometry().asWkb().data())
        out = Path(self.folder(parameters, context))
        path = out.with_name(f"{out.name}_{name.lower()}_{content.hexdigest()[:8]}.gpkg")
        if path.exists():
            return str(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.stem}_part.gpkg")
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName, options.layerName = "GPKG", name.lower()
        transforms = QgsProject.instance().transformContext()
        writer = QgsVectorFileWriter.create(str(aside), source.fields(), source.wkbType(), crs, transforms, options)
        for feature in features:
            writer.addFeature(feature)
        failure = writer.errorMessage() if writer.hasError() else ""
        del writer  # closes the file
        if failure:
            raise QgsProcessingException(f"{path} cannot be written ({failure}).")
        aside.replace(path)
        return str(path)

    def call(self, args: list[str], feedback: Any) -> list[str]:
        """Run geoseg; its log is the log of the algorithm."""
        from processing.core.ProcessingConfig import ProcessingConfig

        try:
            program = find_geoseg(ProcessingConfig.getSetting(PROGRAM) or "")
            feedback.pushCommandInfo(" ".join([program, *args]))
            return run_geoseg(
                program, args, say=feedback.pushInfo, show=feedback.setProgress, is_canceled=feedback.isCanceled
            )
        except CommandError as err:
            raise QgsProcessingException(str(err)) from err

    def show(self, path: str, layer: str, context: Any) -> str:
        """Load a layer of a GeoPackage when the algorithm is done, in the style that is stored in it."""
        source = f"{path}|layername={layer}"
        details = QgsProcessingContext.LayerDetails(layer, context.project() or QgsProject.instance(), layer)
        context.addLayerToLoadOnCompletion(source, details)
        return source

    def add_area(self, what: str) -> None:
        """Add the parameter of an area."""
        self.addParameter(
            QgsProcessingParameterFeatureSource("AOI", what, [QgsProcessing.TypeVectorPolygon], optional=True)
        )

    def add_labels(self) -> None:
        """Add the parameter of labels."""
        self.addParameter(
            QgsProcessingParameterFeatureSource("LABELS", "True buildings", [QgsProcessing.TypeVectorPolygon])
        )

    def add_model(self) -> None:
        """Add the parameter of the model."""
        text = "Model: a shipped one (buildings-30cm, buildings-1m), or a file"
        self.addParameter(QgsProcessingParameterString("MODEL", text, "buildings-30cm"))


class ExtractBuildings(Algorithm):
    """`geoseg run`."""

    ID, NAME = "extractbuildings", "Extract buildings"
    HELP = (
        "Maps the buildings of an orthophoto: polygons with straight walls, a raster of probabilities and a mask. If "
        "it is canceled, the same settings continue. With Overwrite and another threshold or outline, a finished "
        "result gets new polygons in seconds."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:  # noqa: N802
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Image"))
        self.add_area("Only in this area")
        self.add_model()
        threshold = QgsProcessingParameterNumber(
            "THRESHOLD",
            "Threshold: smallest probability of a building (the model's if empty)",
            QgsProcessingParameterNumber.Double,
            optional=True,
            minValue=0.01,
            maxValue=1,
        )
        self.addParameter(threshold)
        self.addParameter(QgsProcessingParameterEnum("OUTLINE", "Outline", list(OUTLINES), defaultValue=0))
        self.addParameter(QgsProcessingParameterBoolean("OVERWRITE", "Overwrite a finished result", False))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Result folder"))
        self.addOutput(QgsProcessingOutputVectorLayer("BUILDINGS", "Buildings", QgsProcessing.TypeVectorPolygon))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:  # noqa: N802
        """Run it."""
        out, aoi = self.folder(parameters, context), self.polygons(parameters, "AOI", context)
        args = ["run", self.image(parameters, context), "--out", out]
        args += ["--model", self.parameterAsString(parameters, "MODEL", context)]
        args += ["--outline", OUTLINES[self.parameterAsEnum(parameters, "OUTLINE", context)]]
        args += ["--aoi", aoi] if aoi else []
        if parameters.get("THRESHOLD") is not None:
            args += ["--threshold", str(self.parameterAsDouble(parameters, "THRESHOLD", context))]
        args += ["--overwrite"] if self.parameterAsBool(parameters, "OVERWRITE", context) else []
        self.call(args, feedback)
        return {"OUTPUT": out, "BUILDINGS": self.show(str(Path(out) / "buildings.gpkg"), "buildings", context)}


class FineTune(Algorithm):
    """`geoseg finetune`."""

    ID, NAME = "finetune", "Fine-tune a model"
    HELP = (
        "Trains the model on buildings that were drawn over the image, and says whether it is better on blocks that "
        "were kept out. Draw all buildings of an area, and give the area if they are not those of the whole image."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:  # noqa: N802
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Image"))
        self.add_labels()
        self.add_area("Area in which all buildings are drawn")
        self.add_model()
        minutes = QgsProcessingParameterNumber.Double
        self.addParameter(QgsProcessingParameterNumber("MINUTES", "Minutes", minutes, 5, minValue=0.05))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Result folder"))
        self.addOutput(QgsProcessingOutputFile("TUNED", "Fine-tuned model"))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:  # noqa: N802
        """Run it."""
        out, aoi = self.folder(parameters, context), self.polygons(parameters, "AOI", context)
        args = ["finetune", self.image(parameters, context), "--out", out]
        args += ["--labels", str(self.polygons(parameters, "LABELS", context))]
        args += ["--model", self.parameterAsString(parameters, "MODEL", context)]
        args += ["--minutes", str(self.parameterAsDouble(parameters, "MINUTES", context))]
        args += ["--aoi", aoi] if aoi else []
        printed = self.call(args, feedback)
        return {"OUTPUT": out, "TUNED": next((line for line in printed if line.endswith(".safetensors")), None)}


class Evaluate(Algorithm):
    """`geoseg evaluate`."""

    ID, NAME = "evaluate", "Evaluate a model"
    HELP = (
        "Scores a model on an image with true buildings: IoU of pixels; precision, recall and F1 of single buildings."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:  # noqa: N802
        """Declare parameters and outputs."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Image"))
        self.add_labels()
        self.add_area("Area in which all buildings are drawn")
        self.add_model()
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Result folder"))
        for name, text in (("IOU", "IoU"), ("PRECISION", "Precision"), ("RECALL", "Recall"), ("F1", "F1")):
            self.addOutput(QgsProcessingOutputNumber(name, text))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:  # noqa: N802
        """Run it."""
        out, aoi = self.folder(parameters, context), self.polygons(parameters, "AOI", context)
        args = ["evaluate", self.image(parameters, context), "--out", out, "--overwrite"]
        args += ["--labels", str(self.polygons(parameters, "LABELS", context))]
        args += ["--model", self.parameterAsString(parameters, "MODEL", context)]
        args += ["--aoi", aoi] if aoi else []
        for line in self.call(args, feedback):
            feedback.pushInfo(line)
        total = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))["total"]
        buildings = total["buildings"]
        scores = {name.upper(): buildings[name] for name in ("precision", "recall", "f1")}
        return {"OUTPUT": out, "IOU": total["iou"], **scores}


class Compare(Algorithm):
    """`geoseg compare`."""

    ID, NAME = "compare", "Compare with a map"
    HELP = (
        "Says which buildings of a result the map has (matched), which have changed or are new, and which are missing."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:  # noqa: N802
        """Declare parameters and outputs."""
        folder = QgsProcessingParameterFile.Folder
        self.addParameter(QgsProcessingParameterFile("RUN", "Result folder of Extract buildings", folder))
        self.addParameter(
            QgsProcessingParameterFeatureSource("MAP", "Buildings of the map", [QgsProcessing.TypeVectorPolygon])
        )
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the comparison"))
        for name, text in (("BUILDINGS", "Buildings"), ("MISSING", "Missing")):
            self.addOutput(QgsProcessingOutputVectorLayer(name, text, QgsProcessing.TypeVectorPolygon))

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:  # noqa: N802
        """Run it."""
        out, path = self.folder(parameters, context), str(self.polygons(parameters, "MAP", context))
        run = self.parameterAsString(parameters, "RUN", context)
        self.call(["compare", run, path, "--out", out, "--overwrite"], feedback)
        layers = str(Path(out) / "comparison.gpkg")
        shown = {name.upper(): self.show(layers, name, context) for name in ("buildings", "missing")}
        return {"OUTPUT": out, **shown}
