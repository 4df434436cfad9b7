"""Networks for other runtimes, with their specification inside; models described for people and for STAC."""

from geoseg.export.catalog import describe_model, describe_models, format_model, format_models
from geoseg.export.export import TARGETS, ExportedModel, export_model
from geoseg.export.stac import describe_item

__all__ = [
    "ExportedModel",
    "TARGETS",
    "describe_item",
    "describe_model",
    "describe_models",
    "export_model",
    "format_model",
    "format_models",
]
