"""Which scenes a user means: files, folders, globs, STAC, manifests; nothing of a raster is opened here."""

from geoseg.sources.inputs import list_sources
from geoseg.sources.source import SceneSource, filter_sources, pixels_with_data

__all__ = ["SceneSource", "filter_sources", "list_sources", "pixels_with_data"]
