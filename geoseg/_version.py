"""The version of geoseg, for whatever stamps its files with it."""

__version__ = "0.1.0"
