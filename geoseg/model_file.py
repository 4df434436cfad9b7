"""Model files: which format a file has, told by its content, and the metadata that an exported network carries."""

import hashlib
import xml.etree.ElementTree as ET
import zipfile
from enum import StrEnum
from pathlib import Path

from geoseg.errors import BundleError
from geoseg.pt2_archive import DAMAGES, check_archive, pickled, read_extras

SPEC_KEY = "geoseg_spec"
"""JSON of the `ModelSpec`."""

BUNDLE_KEY = "geoseg_bundle_key"
"""Key of the bundle that a file was exported from."""

MLM_KEY = "stac_mlm"
"""JSON of the model's fields of the STAC MLM extension."""

RT_INFO = "geoseg"
"""Section of an OpenVINO file's rt_info that holds the metadata."""

SAFETENSORS_HEADER_BYTES = 100_000_000
"""Longest header that safetensors itself accepts."""

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".bin", ".th", ".tar"})
"""Suffixes that pickles usually have; a file with one of them is refused even if it is not a pickle."""


class ModelFormat(StrEnum):
    """Formats of a model that geoseg runs."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    OPENVINO = "openvino"
    PT2 = "pt2"


def recognize(path: Path) -> ModelFormat:
    """Return the format of a model file.

    The content is checked first, so that a renamed pickle is still a pickle; the suffix decides only for a format
    without a mark of its own (ONNX).

    Raises:
        PickledModelError: If it is a pickle, or has the suffix of one.
        BundleError: If it is none of the formats that geoseg runs.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as err:
        raise BundleError(f"{path} cannot be read ({err}). Check its permissions.") from err
    # eight bytes of header length, little endian, then JSON: https://github.com/huggingface/safetensors#format
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= SAFETENSORS_HEADER_BYTES:
        return ModelFormat.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _recognize_zip(path)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        raise pickled(path, f"it begins with the mark of a pickle, protocol {head[1]}")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"<?xml", b"<net")):
        return ModelFormat.OPENVINO
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise pickled(path, f"{suffix} files usually are")
    if suffix in (".safetensors", ".onnx"):
        return ModelFormat(suffix[1:])
    raise BundleError(
        f"{path} is not a model that geoseg runs: its first bytes are {head[:8]!r}. Expected a bundle of `geoseg "
        "train` (.safetensors) or a file of `geoseg models export` (.onnx, .xml, .pt2)."
    )


def _recognize_zip(path: Path) -> ModelFormat:
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.partition("/")[2] for name in file.namelist()}
    except (*DAMAGES, ValueError) as err:
        raise BundleError(f"{path} is a zip archive that is damaged or cut short ({err}). Copy it again.") from err
    if "archive_format" in names:
        return ModelFormat.PT2
    if any(name.endswith(".pkl") for name in names):
        raise pickled(path, "it is a torch.save archive with a data.pkl inside")
    raise BundleError(
        f"{path} is a zip archive, but not a torch.export archive of torch 2.8 or later (it has no archive_format). "
        "Give a file of `geoseg models export --to pt2`."
    )


def read_metadata(path: Path, model_format: ModelFormat) -> dict[str, str]:
    """Return the texts that an exported network carries, by name.

    Args:
        path: The file; of an OpenVINO pair the `.xml`.
        model_format: Its format, not `SAFETENSORS` (`geoseg.bundle` reads that one).

    Raises:
        PickledModelError: If loading it would unpickle something.
        BundleError: If it is damaged, or carries no specification.
    """
    if model_format is ModelFormat.PT2:
        check_archive(path)
        texts = read_extras(path)
    else:
        texts = _read_onnx(path) if model_format is ModelFormat.ONNX else _read_openvino(path)
    if SPEC_KEY not in texts:
        found = f"it carries {', '.join(sorted(texts))}" if texts else "it carries no metadata"
        raise BundleError(
            f"{path} is a network ({model_format}) without a geoseg specification: {found}; expected {SPEC_KEY}. "
            "Bands, pixel size and normalization are unknown without it: export the bundle with `geoseg models export "
            f"--to {model_format}`."
        )
    return texts


def _read_onnx(path: Path) -> dict[str, str]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as err:
        raise BundleError(f"{path} is not an ONNX file or is damaged ({err}). Copy or export it again.") from err
    texts = {prop.key: prop.value for prop in model.metadata_props}
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):  # bytes that are not in UTF-8
        raise BundleError(f"{path} is an ONNX file with damaged metadata. Copy or export it again.")
    return texts


def _read_openvino(path: Path) -> dict[str, str]:
    if not path.with_suffix(".bin").is_file():
        raise BundleError(
            f"{path} is an OpenVINO network whose weights are missing: expected {path.with_suffix('.bin').name} beside "
            "it. Copy both files."
        )
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as err:
        raise BundleError(f"{path} is not XML or is cut short ({err}). Copy or export it again.") from err
    if root.tag != "net":
        raise BundleError(f"{path} is XML of <{root.tag}>; expected the <net> of an OpenVINO network.")
    section = root.find(f"rt_info/{RT_INFO}")
    return {} if section is None else {text.tag: text.get("value", "") for text in section}


def model_files(path: Path, model_format: ModelFormat) -> list[Path]:
    """Return the files that a model consists of."""
    return [path, path.with_suffix(".bin")] if model_format is ModelFormat.OPENVINO else [path]


def file_sha256(path: Path, model_format: ModelFormat) -> str:
    """Return the SHA-256 of a model's file, of an OpenVINO pair that of both files, one after the other."""
    digest = hashlib.sha256()
    for part in model_files(path, model_format):
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
