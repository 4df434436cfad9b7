"""Scenes: georeferenced images, opened by their headers and read lazily on the grid that a model wants."""

from geoseg.io.remote import REMOTE_ENV, is_remote
from geoseg.scene.files import Paths, absolute_path, gdal_env, list_files, open_raster, path_of, web_address
from geoseg.scene.georeference import check_transform, exif_turn, read_grid
from geoseg.scene.levels import Levels, stretch
from geoseg.scene.opening import open_scene, parse_crs
from geoseg.scene.reader import close_idle_readers, close_readers, open_reader
from geoseg.scene.scene import Pixels, Scene, data_windows
from geoseg.scene.stored import Raster, StoredRaster, read_window

__all__ = [
    "REMOTE_ENV",
    "Levels",
    "Paths",
    "Pixels",
    "Raster",
    "Scene",
    "StoredRaster",
    "absolute_path",
    "check_transform",
    "close_idle_readers",
    "close_readers",
    "data_windows",
    "exif_turn",
    "gdal_env",
    "is_remote",
    "list_files",
    "open_raster",
    "open_reader",
    "open_scene",
    "parse_crs",
    "path_of",
    "read_grid",
    "read_window",
    "stretch",
    "web_address",
]
