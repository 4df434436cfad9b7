"""Which scenes a user means: files, folders, globs, STAC, manifests; nothing of a raster is opened here."""

from geoseg.sources.inputs import list_sources
from geoseg.sources.location import identity
from geoseg.sources.source import Found, SceneSource, choose_names, filter_sources, pixels_with_data

__all__ = ["Found", "SceneSource", "choose_names", "filter_sources", "identity", "list_sources", "pixels_with_data"]
