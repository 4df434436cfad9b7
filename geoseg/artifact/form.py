"""Which kind of model file this is, told by its first bytes and not by its name alone."""

import zipfile
from enum import StrEnum
from pathlib import Path

from geoseg.errors import BundleError, PickledModelError

HEAD_BYTES = 64
SAFETENSORS_HEADER_BYTES = 100_000_000
"""Longest header that safetensors itself accepts."""

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".bin", ".th", ".tar"})
"""Files that are pickles by custom; those of them that are not are no bundles either."""


class Form(StrEnum):
    """Formats of a model that geoseg runs."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    OPENVINO = "openvino"
    PT2 = "pt2"


def recognize(path: Path) -> Form:
    """Tell the format of a model file.

    A file is judged by what it holds first, so that a renamed pickle is still a pickle, and by its suffix where the
    format has no mark of its own (ONNX).

    Raises:
        PickledModelError: If it is a pickle, or a file that is one by custom.
        BundleError: If it is none of the formats that geoseg runs.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as err:
        raise BundleError(f"{path} cannot be read ({err}). Check its permissions.") from err
    form = _by_content(path, head) or _by_suffix(path)
    if form is None:
        raise BundleError(
            f"{path} is not a model that geoseg runs: its first bytes are {head[:8]!r}. Expected a bundle of `geoseg "
            "train` (.safetensors) or a file of `geoseg models export` (.onnx, .xml, .pt2)."
        )
    return form


def _by_content(path: Path, head: bytes) -> Form | None:
    if _is_safetensors(head):
        return Form.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _zip_form(path)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        raise pickled(path, f"it begins with the mark of a pickle, protocol {head[1]}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return Form.OPENVINO if text.startswith((b"<?xml", b"<net")) else None


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of header length, little endian, then JSON; https://github.com/huggingface/safetensors#format."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= SAFETENSORS_HEADER_BYTES


def _zip_form(path: Path) -> Form:
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.partition("/")[2] for name in file.namelist()}
    except zipfile.BadZipFile as err:
        raise BundleError(f"{path} is a zip archive that is damaged or cut short ({err}). Copy it again.") from err
    if "archive_format" in names:
        return Form.PT2
    if any(name.endswith(".pkl") for name in names):
        raise pickled(path, "it is a torch.save archive with a data.pkl inside")
    raise BundleError(
        f"{path} is a zip archive, but no torch.export one of torch 2.8 or later (it has no archive_format). "
        "Give a file of `geoseg models export --to pt2`."
    )


def _by_suffix(path: Path) -> Form | None:
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise pickled(path, f"that is what {suffix} files are by custom")
    return {".safetensors": Form.SAFETENSORS, ".onnx": Form.ONNX}.get(suffix)


def pickled(path: Path, why: str) -> PickledModelError:
    """Return the refusal of a pickle."""
    return PickledModelError(
        f"{path} is taken for a pickle: {why}. Opening a pickle runs whatever code its maker put into it, so geoseg "
        "opens none. Give a bundle of `geoseg train` (.safetensors) or a file of `geoseg models export` (.onnx, .xml, "
        ".pt2); weights that you trust become a bundle with geoseg.bundle.save_bundle (docs/export.md)."
    )
