"""Which format a file has; pickles are refused by what they are, whatever they are called, and never opened."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from geoseg.bundle import load_bundle
from geoseg.errors import BundleError, PickledModelError
from geoseg.model_file import ModelFormat, file_sha256, recognize


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self):
        return os.system, (f"touch '{self.sign}'",)


def torch_zip(trap: Trap, path: Path) -> None:
    torch.save({"state_dict": trap}, path)


def torch_legacy(trap: Trap, path: Path) -> None:
    torch.save({"state_dict": trap}, path, _use_new_zipfile_serialization=False)


def plain(protocol: int):
    def write(trap: Trap, path: Path) -> None:
        path.write_bytes(pickle.dumps(trap, protocol))

    return write


KINDS = {"torch zip": torch_zip, "torch of before 1.6": torch_legacy} | {f"protocol {p}": plain(p) for p in range(6)}
SUFFIXES = (".pt", ".pth", ".ckpt", ".pkl", ".safetensors", ".onnx", ".xml", ".pt2", ".model", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_is_refused_under_any_name_and_its_code_never_runs(tmp_path: Path, kind: str, suffix: str) -> None:
    sign, path = tmp_path / "it-ran", tmp_path / f"model{suffix}"
    KINDS[kind](Trap(sign), path)
    with pytest.raises(BundleError, match=r"model.*(safetensors|Copy or export it again)") as caught:
        load_bundle(path)
    assert not sign.exists()
    if kind not in ("protocol 0", "protocol 1") or suffix in (".pt", ".pth", ".ckpt", ".pkl"):
        assert isinstance(caught.value, PickledModelError)


def test_the_trap_of_these_tests_does_spring(tmp_path: Path) -> None:
    torch_zip(Trap(tmp_path / "it-ran"), tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("size", [0x0480, 0x0380, 0x0280])
def test_safetensors_whose_length_looks_like_a_pickle_are_safetensors(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.anything"
    path.write_bytes(size.to_bytes(8, "little") + json.dumps({"__metadata__": {"a": "b"}}).ljust(size).encode())
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"a": "b"}
    assert path.read_bytes()[0] == 0x80
    assert recognize(path) is ModelFormat.SAFETENSORS


@pytest.mark.parametrize(
    ("name", "content", "model_format"),
    [
        ("a.onnx", b"\x08\x08\x12\x07pytorch", ModelFormat.ONNX),
        ("a.ONNX", b"\x08\x08\x12\x07pytorch", ModelFormat.ONNX),
        ("a.xml", b'<?xml version="1.0"?>\n<net name="a"/>', ModelFormat.OPENVINO),
        ("renamed", b'\xef\xbb\xbf <net name="a"/>', ModelFormat.OPENVINO),
        ("empty.safetensors", b"", ModelFormat.SAFETENSORS),
    ],
)
def test_a_format_is_told_by_content_then_by_name(
    tmp_path: Path, name: str, content: bytes, model_format: ModelFormat
) -> None:
    (tmp_path / name).write_bytes(content)
    assert recognize(tmp_path / name) is model_format


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89HDF\r\n\x1a\n", b"hello" * 20])
def test_what_is_no_model_is_refused_with_what_is_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.h5").write_bytes(content)
    with pytest.raises(BundleError, match=r"not a model that geoseg runs: its first bytes .*\.onnx, \.xml, \.pt2"):
        recognize(tmp_path / "model.h5")


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match=r"not a torch\.export archive"):
        recognize(tmp_path / "a.pt2")


def test_a_zip_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(200)}, tmp_path / "a.pt2")
    (tmp_path / "a.pt2").write_bytes((tmp_path / "a.pt2").read_bytes()[:-60])
    with pytest.raises(BundleError, match="cut short"):
        recognize(tmp_path / "a.pt2")


def test_the_key_of_a_network_in_two_files_is_that_of_both(tmp_path: Path) -> None:
    network, weights = tmp_path / "a.xml", tmp_path / "a.bin"
    network.write_bytes(b"layers")
    weights.write_bytes(b"one")
    before = file_sha256(network, ModelFormat.OPENVINO)
    weights.write_bytes(b"two")
    assert file_sha256(network, ModelFormat.OPENVINO) != before
