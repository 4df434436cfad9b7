"""Archives of torch.export (`.pt2`), inspected before torch opens them; the refusal of pickles.

`torch.export.load` unpickles sample inputs, custom objects and weights that are marked so, evaluates size expressions
as Python (sympy.sympify), runs guards as code, and calls whatever attribute of `torch` a node names. None of these is
needed for a network, and geoseg writes none: an archive that has any is refused before torch sees it.
"""

import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoseg.errors import BundleError, PickledModelError
from geoseg.io.store import parse_json

OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file|save|load)\w+\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\.sym_(int|float|max|min|not|ite|sum)"
)
"""Calls that a node of the graph may make."""

EXPRESSION_WORDS = re.compile(
    r"Symbol|Integer|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|CeilToInt|FloorToInt|TruncToInt"
    r"|IntTrueDiv|TrueDiv|ToFloat|Float|Max|Min|Abs|Where|Eq|Ne|Ge|Gt|Le|Lt|Equality|Unequality|GreaterThan|LessThan"
    r"|StrictGreaterThan|StrictLessThan|BooleanTrue|BooleanFalse|Piecewise|ExprCondPair|And|Or|Not|Identity|precision"
    r"|positive|nonnegative|negative|integer|True|False|None|[a-z]{1,6}\d+"
)
EXPRESSION_CHARACTERS = re.compile(r"[\w\s()+\-*/,='<>&|~]*")
"""No dot, bracket or backslash: an expression of sizes is arithmetic and nothing else."""

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)"
    r"|data/sample_inputs/model\.pt|extra/[\w.-]+"
)


MOST_TEXT_BYTES = 1 << 28
"""Longest text in an archive; the graphs of large networks take a few megabytes."""

DAMAGES = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError)
"""What zipfile raises: a RuntimeError for files with a password, NotImplementedError for kinds of compression."""


def read_extras(path: Path) -> dict[str, str]:
    """Return the extra files of an archive, name to text.

    Raises:
        BundleError: If it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.partition("/")[2]: name for name in file.namelist()}
            extras = {short.removeprefix("extra/"): full for short, full in names.items() if short.startswith("extra/")}
            return {short: _read(file, full).decode() for short, full in extras.items()}
    except (*DAMAGES, UnicodeDecodeError) as err:
        raise BundleError(f"{path} is damaged or cut short ({err}). Copy or export it again.") from err


def _read(file: zipfile.ZipFile, name: str) -> bytes:
    """Read a text of an archive, unless it is absurdly long once it is unpacked."""
    size = file.getinfo(name).file_size
    if size > MOST_TEXT_BYTES:
        raise zipfile.BadZipFile(f"{name} is {size:,} bytes long, more than {MOST_TEXT_BYTES:,}")
    return file.read(name)


def pickled(path: Path, why: str) -> PickledModelError:
    """Return the error that refuses a pickle."""
    return PickledModelError(
        f"{path} is taken for a pickle: {why}. Opening a pickle runs whatever code its author put into it, so geoseg "
        "does not open it. Give a bundle of `geoseg train` (.safetensors) or a file of `geoseg models export` (.onnx, "
        ".xml, .pt2); weights that you trust become a bundle with geoseg.bundle.save_bundle (docs/export.md)."
    )


def check_archive(path: Path) -> None:
    """Refuse an archive that holds anything but a graph of torch operators, plain tensors and text.

    Raises:
        PickledModelError: If a part of it would be unpickled, evaluated or called as Python.
        BundleError: If it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = _members(path, file)
            graph = _read(file, members["models/model.json"]).decode()
            configs = [
                parse_json(_read(file, full)) for short, full in members.items() if short.endswith("_config.json")
            ]
        for name, tensor in itertools.chain.from_iterable(config["config"].items() for config in configs):
            if tensor["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", tensor["path_name"]):
                raise pickled(path, f"its tensor {name} is pickled")
        if "__enum__" in graph:
            raise pickled(path, "its graph names Python objects to import")
        for key, value in _walk(parse_json(graph)):
            if key == "target" and isinstance(value, str) and not OPERATOR.fullmatch(value):
                raise pickled(path, f"its graph calls {value!r}, which is not an operator that networks are made of")
            if key == "expr_str":
                words = re.findall(r"[A-Za-z_]\w*", value)
                if not EXPRESSION_CHARACTERS.fullmatch(value) or not all(map(EXPRESSION_WORDS.fullmatch, words)):
                    raise pickled(path, f"its graph holds {value!r} where arithmetic of sizes belongs")
            if key == "guards_code" and value:
                raise pickled(path, "its graph holds guards, which torch runs as Python")
    except PickledModelError:
        raise
    except (*DAMAGES, KeyError, ValueError, TypeError, AttributeError, RecursionError) as err:
        raise BundleError(
            f"{path} is not an archive of torch.export, or is damaged ({type(err).__name__}: {err}). Export it again."
        ) from err


def _members(path: Path, file: zipfile.ZipFile) -> dict[str, str]:
    """Return the archive's files, short name to full name, if all of them are of a kind that a network needs."""
    entries = file.infolist()
    members = {entry.filename.partition("/")[2]: entry for entry in entries}
    if len(members) != len(entries) or len({entry.filename.partition("/")[0] for entry in entries}) != 1:
        raise pickled(path, "two of its files share a name, and torch may open another one than was checked")
    strange = [short for short in members if not MEMBERS.fullmatch(short)]
    if strange:
        raise pickled(path, f"it holds {strange[0]}, which is neither a plain tensor nor a graph")
    samples = members.get("data/sample_inputs/model.pt")
    if samples is not None and samples.file_size:
        raise pickled(path, "it holds pickled sample inputs (export it with `example_inputs` set to None)")
    return {short: entry.filename for short, entry in members.items()}


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a JSON document, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)
