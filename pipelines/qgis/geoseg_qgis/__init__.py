"""geoseg in the Processing toolbox of QGIS."""

from typing import Any


def classFactory(iface: Any) -> Any:  # noqa: N802  # QGIS calls it by this name
    """Return the plugin."""
    from geoseg_qgis.provider import Plugin

    return Plugin()
