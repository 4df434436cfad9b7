"""A .pt2 archive is looked through: nothing in it may be unpickled, evaluated or called but torch operators."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from geoseg.errors import BundleError, PickledModelError
from geoseg.pt2_archive import check_archive

Members = dict[str, bytes]
ROOT = "model/"


class Small(nn.Module):
    """Two operators, weights, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.shift


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """The files of a harmless archive."""
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    sides = {2: 4 * torch.export.Dim("y", min=1, max=64), 3: 4 * torch.export.Dim("x", min=1, max=64)}
    program = torch.export.export(Small().eval(), (torch.zeros(1, 1, 8, 12),), dynamic_shapes=(sides,))
    program.example_inputs = None
    program._guards_code = []
    torch.export.save(program, path, extra_files={"note": "hello"})
    with zipfile.ZipFile(path) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def write(members: Members, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(ROOT + name, content)
    return path


def edit_json(name: str, edit: Callable[[dict], None]) -> Callable[[Members, bytes], Members]:
    def change(members: Members, trap: bytes) -> Members:
        document = json.loads(members[name])
        edit(document)
        return members | {name: json.dumps(document).encode()}

    return change


def call(target: str) -> Callable[[Members, bytes], Members]:
    return edit_json("models/model.json", lambda doc: doc["graph_module"]["graph"]["nodes"][0].update(target=target))


def expression(text: str) -> Callable[[Members, bytes], Members]:
    def change(members: Members, trap: bytes) -> Members:
        graph = members["models/model.json"].decode()
        start = graph.index('"expr_str": "') + len('"expr_str": "')
        end = graph.index('"', start)
        return members | {"models/model.json": (graph[:start] + text + graph[end:]).encode()}

    return change


def pickle_a_weight(document: dict) -> None:
    document["config"]["conv.weight"]["use_pickle"] = True


def make_a_custom_object(document: dict) -> None:
    document["config"]["shift"]["path_name"] = "opaque_obj_0"


ATTACKS = {
    "sample inputs": lambda members, trap: members | {"data/sample_inputs/model.pt": trap},
    "legacy weights": lambda members, trap: members | {"data/weights/model.pt": trap},
    "legacy constants": lambda members, trap: members | {"data/constants/model.pt": trap},
    "a second model": lambda members, trap: members | {"models/other.json": members["models/model.json"]},
    "compiled code": lambda members, trap: members | {"data/aotinductor/model/a.so": b"\x7fELF"},
    "a pickled weight": edit_json("data/weights/model_weights_config.json", pickle_a_weight),
    "an object": edit_json("data/weights/model_weights_config.json", make_a_custom_object),
    "os.system": call("torch.os.system"),
    "torch.load": call("torch.load"),
    "a file": call("torch.ops.aten.from_file.default"),
    "an attribute": call("_operator.attrgetter"),
    "another library": call("torch.ops.mylib.run.default"),
    "an import": expression("__import__('os').system('touch it-ran')"),
    "an evaluation": expression("Integer(eval('1'))"),
    "an attribute in a size": expression("Integer.mro()"),
    "guards": edit_json("models/model.json", lambda doc: doc.update(guards_code=["print(1)"])),
    "an enumeration": edit_json("models/model.json", lambda doc: doc.update(x={"__enum__": True, "fqn": "os:path"})),
}


class Trap:
    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self):
        return os.system, (f"touch '{self.sign}'",)


@pytest.fixture
def trap(tmp_path: Path) -> bytes:
    """A torch.save archive that makes a file when it is opened."""
    buffer = io.BytesIO()
    torch.save((Trap(tmp_path / "it-ran"),), buffer)
    return buffer.getvalue()


def test_a_harmless_archive_passes_and_loads(members: Members, tmp_path: Path) -> None:
    path = write(members, tmp_path / "model.pt2")
    check_archive(path)
    pixels = torch.randn(1, 1, 20, 16)
    assert torch.export.load(path).module()(pixels).shape == pixels.shape


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_would_run_code_is_refused(members: Members, tmp_path: Path, trap: bytes, attack: str) -> None:
    changed = ATTACKS[attack](members, trap)
    assert changed != members
    with pytest.raises(PickledModelError, match="taken for a pickle"):
        check_archive(write(changed, tmp_path / "model.pt2"))
    assert not (tmp_path / "it-ran").exists()


def test_two_files_of_one_name_are_refused(members: Members, tmp_path: Path) -> None:
    path = write(members, tmp_path / "model.pt2")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/models/model.json", members["models/model.json"])
    with pytest.raises(PickledModelError, match="share a name"):
        check_archive(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("models/model.json", content) for content in (b"", b"{", b"\xff")]
    + [("data/weights/model_weights_config.json", content) for content in (b"", b"{", b"[]", b'{"config": 3}')],
)
def test_a_damaged_archive_is_refused(members: Members, tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(BundleError, match="damaged"):
        check_archive(write(members | {name: content}, tmp_path / "model.pt2"))


def test_an_archive_without_a_graph_is_refused(members: Members, tmp_path: Path) -> None:
    without = {name: content for name, content in members.items() if name != "models/model.json"}
    with pytest.raises(BundleError, match=r"not an archive of torch\.export"):
        check_archive(write(without, tmp_path / "model.pt2"))


def test_the_trap_of_these_tests_does_spring(tmp_path: Path, trap: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(trap)) as file:
        pickle.loads(file.read(next(name for name in file.namelist() if name.endswith("data.pkl"))))
    assert (tmp_path / "it-ran").exists()
