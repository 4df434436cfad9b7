"""How QGIS draws footprints (by confidence, dashed where the scene cuts a building off), probabilities and classes."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

CLASSES = (
    (0.0, 0.6, "255,87,34", "unsure (below 0.6)"),
    (0.6, 0.8, "255,214,0", "likely (0.6 to 0.8)"),
    (0.8, 1.0, "0,200,255", "sure (above 0.8)"),
)
"""Lower and upper confidence, color, label; the surest in a color that neither roofs nor plants have."""

PLAIN = "0,200,255"
"""Color of footprints without a confidence, such as those of a mask."""

FILL_ALPHA, OUTLINE_ALPHA = 60, 255
"""The image shows through the fill; outlines stay crisp."""


RAMP = (
    (0.0, "#ffe45c", 0, "0: no {}"),
    (0.25, "#ffc83c", 70, "0.25"),
    (0.5, "#ff8c1e", 110, "0.5: as likely as not"),
    (0.75, "#e6411e", 130, "0.75"),
    (1.0, "#96003c", 150, "1: surely {}"),
)
"""Probability, color, alpha from 0 to 255, label; the target's name is put into the labels."""


def footprint_qml(*, has_confidence: bool = True) -> str:
    """Return the QML document that QGIS applies to a layer of footprints (QGIS 3.22 and later).

    Args:
        has_confidence: Whether the layer has the column `confidence`; QGIS draws nothing by a column that is missing.
    """
    if not has_confidence:
        return _document(_single(PLAIN, is_dashed=True), "Symbology")
    ranges = "".join(
        f'<range lower="{low:.15f}" upper="{high:.15f}" symbol="{i}" label={quoteattr(label)} render="true"/>'
        for i, (low, high, _, label) in enumerate(CLASSES)
    )
    symbols = "".join(_symbol(str(i), color) for i, (_, _, color, _) in enumerate(CLASSES))
    return _document(
        f'<renderer-v2 type="graduatedSymbol" attr="confidence" graduatedMethod="GraduatedColor" {_DRAWING}>'
        f"<ranges>{ranges}</ranges><symbols>{symbols}</symbols></renderer-v2>",
        "Symbology",
    )


def category_qml(column: str, categories: Mapping[str, tuple[str, str]]) -> str:
    """Return the QML document that QGIS applies to polygons of a few kinds (QGIS 3.22 and later).

    Args:
        column: The column with the kind.
        categories: Color as `red,green,blue` and label of every kind.
    """
    listed = "".join(
        f'<category value={quoteattr(value)} symbol="{i}" label={quoteattr(label)} render="true"/>'
        for i, (value, (_, label)) in enumerate(categories.items())
    )
    symbols = "".join(_symbol(str(i), color, is_dashed=False) for i, (color, _) in enumerate(categories.values()))
    return _document(
        f'<renderer-v2 type="categorizedSymbol" attr={quoteattr(column)} {_DRAWING}>'
        f"<categories>{listed}</categories><symbols>{symbols}</symbols></renderer-v2>",
        "Symbology",
    )


def plain_qml(color: str) -> str:
    """Return the QML document that QGIS applies to polygons of one kind: an outline and a light fill."""
    return _document(_single(color), "Symbology")


def form_qml(color: str, column: str, choices: Mapping[str, str]) -> str:
    """Return the QML document of polygons that a person judges: the form offers the choices for a column.

    Args:
        color: `red,green,blue`.
        column: The column to fill in.
        choices: Stored value by label.
    """
    listed = "".join(
        f'<Option type="Map"><Option type="QString" name={quoteattr(label)} value={quoteattr(value)}/></Option>'
        for label, value in choices.items()
    )
    form = (
        f'<fieldConfiguration><field name={quoteattr(column)} configurationFlags="None"><editWidget type="ValueMap">'
        f'<config><Option type="Map"><Option type="List" name="map">{listed}</Option></Option></config>'
        "</editWidget></field></fieldConfiguration>"
    )
    return _document(_single(color) + form, "Symbology|Fields|Forms")


def _single(color: str, *, is_dashed: bool = False) -> str:
    """Return a renderer of one symbol."""
    symbol = _symbol("0", color, is_dashed=is_dashed)
    return f'<renderer-v2 type="singleSymbol" {_DRAWING}><symbols>{symbol}</symbols></renderer-v2>'


def _document(content: str, categories: str) -> str:
    """Return a QML document of polygons."""
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        f'<qgis version="3.22.0" styleCategories="{categories}">{content}'
        "<layerGeometryType>2</layerGeometryType></qgis>"
    )


def class_qml(names: Sequence[str], colors: Sequence[str], *, clear: int | None = None) -> str:
    """Return the QML document that QGIS applies to a raster of class indices: its classes alone, with their names.

    Args:
        names: Name of every class.
        colors: `#RRGGBB` of every class.
        clear: A class that is not drawn, so that what lies below shows.
    """
    entries = "".join(
        f'<paletteEntry value="{index}" color={quoteattr(color.lower())} alpha="{0 if index == clear else 255}" '
        f"label={quoteattr(name)}/>"
        for index, (name, color) in enumerate(zip(names, colors, strict=True))
    )
    return _raster_qml(
        '<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">'
        f"<colorPalette>{entries}</colorPalette></rasterrenderer>"
    )


def mask_qml(names: Sequence[str], colors: Sequence[str]) -> str:
    """Return the QML document of a mask, whose first class is not drawn: the image shows through."""
    return class_qml(names, colors, clear=0)


def probability_qml(target: str) -> str:
    """Return the QML document that QGIS applies to a raster of probabilities: clear at 0, and red at 1."""
    entries = "".join(
        f'<item value="{value}" color="{color}" alpha="{alpha}" label={quoteattr(label.format(target))}/>'
        for value, color, alpha, label in RAMP
    )
    return _raster_qml(
        '<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" '
        'classificationMin="0" classificationMax="1"><rastershader><colorrampshader colorRampType="INTERPOLATED" '
        f'classificationMode="1" clip="0" minimumValue="0" maximumValue="1">{entries}'
        '<rampLegendSettings useContinuousLegend="0"/></colorrampshader></rastershader></rasterrenderer>'
    )


def _raster_qml(renderer: str) -> str:
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        f'<qgis version="3.22.0" styleCategories="Symbology"><pipe>{renderer}</pipe><blendMode>0</blendMode></qgis>\n'
    )


def category_xml(names: Sequence[str]) -> str:
    """Return GDAL's side file of category names (https://gdal.org/user/raster_data_model.html)."""
    listed = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    band = f'<PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand>'
    return f"<PAMDataset>{band}</PAMDataset>\n"


def _symbol(name: str, color: str, *, is_dashed: bool = True) -> str:
    """Return a fill symbol: a light fill below a crisp outline, which may be dashed where `edge` is true."""
    options = {
        "color": f"{color},{FILL_ALPHA}",
        "style": "solid",
        "outline_color": f"{color},{OUTLINE_ALPHA}",
        "outline_style": "solid",
        "outline_width": "0.36",
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }
    shown = "".join(f'<Option type="QString" name="{key}" value="{value}"/>' for key, value in options.items())
    dashes = _DASHED_AT_THE_EDGE if is_dashed else ""
    return (
        f'<symbol type="fill" name="{name}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0"><Option type="Map">{shown}</Option>'
        f"<data_defined_properties>{dashes}</data_defined_properties></layer></symbol>"
    )


_DRAWING = 'enableorderby="0" forceraster="0" symbollevels="0"'
_EXPRESSION = quoteattr("if(\"edge\", 'dash', 'solid')")
_DASHED_AT_THE_EDGE = (
    '<Option type="Map"><Option type="QString" name="name" value=""/><Option type="Map" name="properties">'
    '<Option type="Map" name="outlineStyle"><Option type="bool" name="active" value="true"/>'
    f'<Option type="QString" name="expression" value={_EXPRESSION}/><Option type="int" name="type" value="3"/></Option>'
    '</Option><Option type="QString" name="type" value="collection"/></Option>'
)
