"""The texts that an exported network carries, by name: its specification, the key of its bundle, STAC fields."""

import hashlib
import xml.etree.ElementTree as ET
from pathlib import Path

from geoseg.artifact.archive import check_archive, read_extras
from geoseg.artifact.form import Form
from geoseg.errors import BundleError

SPEC_KEY = "geoseg_spec"
"""JSON of the `ModelSpec`."""

BUNDLE_KEY = "geoseg_bundle_key"
"""Key of the bundle that a file was exported from."""

MLM_KEY = "stac_mlm"
"""JSON of the model's fields of the STAC MLM extension."""

RT_INFO = "geoseg"
"""Section of an OpenVINO file's rt_info that holds the texts."""


def read_header(path: Path, form: Form) -> dict[str, str]:
    """Return the texts that an exported network carries.

    Args:
        path: The file; of an OpenVINO pair the `.xml`.
        form: Its format, not `SAFETENSORS` (`geoseg.bundle` reads that one).

    Raises:
        PickledModelError: If loading it would unpickle something.
        BundleError: If it is damaged, or carries no specification.
    """
    readers = {Form.ONNX: _read_onnx, Form.OPENVINO: _read_openvino, Form.PT2: _read_pt2}
    header = readers[form](path)
    if SPEC_KEY not in header:
        found = f"it carries {', '.join(sorted(header))}" if header else "it carries no metadata"
        raise BundleError(
            f"{path} is a network ({form}) without a geoseg specification: {found}; expected {SPEC_KEY}. Bands, pixel "
            f"size and normalization are unknown without it: export the bundle with `geoseg models export --to {form}`."
        )
    return header


def _read_onnx(path: Path) -> dict[str, str]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as err:
        raise BundleError(f"{path} is no ONNX file or is damaged ({err}). Copy or export it again.") from err
    return {prop.key: prop.value for prop in model.metadata_props}


def _read_openvino(path: Path) -> dict[str, str]:
    if not path.with_suffix(".bin").is_file():
        raise BundleError(
            f"{path} is an OpenVINO network whose weights are missing: expected {path.with_suffix('.bin').name} beside "
            "it. Copy both files."
        )
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as err:
        raise BundleError(f"{path} is no XML or is cut short ({err}). Copy or export it again.") from err
    if root.tag != "net":
        raise BundleError(f"{path} is XML of <{root.tag}>; expected the <net> of an OpenVINO network.")
    section = root.find(f"rt_info/{RT_INFO}")
    return {} if section is None else {text.tag: text.get("value", "") for text in section}


def _read_pt2(path: Path) -> dict[str, str]:
    check_archive(path)
    return read_extras(path)


def file_sha256(path: Path, form: Form) -> str:
    """Return the SHA-256 of a file, of an OpenVINO pair that of both files after each other."""
    digest = hashlib.sha256()
    for part in model_files(path, form):
        with part.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def model_files(path: Path, form: Form) -> list[Path]:
    """Return the files that a model consists of."""
    return [path, path.with_suffix(".bin")] if form is Form.OPENVINO else [path]
