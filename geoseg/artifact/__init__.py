"""Model files as they lie on disk: which format a file has, and the header inside. Nothing is ever unpickled."""

from geoseg.artifact.archive import check_archive, read_extras
from geoseg.artifact.form import Form, recognize
from geoseg.artifact.header import BUNDLE_KEY, MLM_KEY, SPEC_KEY, file_sha256, read_header

__all__ = [
    "BUNDLE_KEY",
    "Form",
    "MLM_KEY",
    "SPEC_KEY",
    "check_archive",
    "file_sha256",
    "read_extras",
    "read_header",
    "recognize",
]
