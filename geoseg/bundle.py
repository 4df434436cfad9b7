"""A trained network in one safetensors file: half-precision weights, and the specification in the file's header.

Nothing is unpickled. The header holds `geoseg_spec` (JSON of `ModelSpec`), `geoseg_weights_sha256`, a checksum of the
weights that is compared when they are loaded, and `geoseg_sha256`, one of both that is compared at once. Files that
`geoseg models export` wrote from a bundle carry the specification too and are loaded like one (`geoseg.model_file`).
"""

import colorsys
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import BundleError, UnknownModelError
from geoseg.io.aside import write_aside
from geoseg.io.remote import is_there
from geoseg.io.store import parse_json
from geoseg.model_file import SPEC_KEY, ModelFormat, file_sha256, read_metadata, recognize

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "geoseg-bundle-1"
BUNDLE_MODE = 0o644
"""safetensors itself makes files that only their owner can read."""

WEIGHTS_KEY = "geoseg_weights_sha256"
CHECKSUM_KEY = "geoseg_sha256"
"""Absent in bundles of geoseg 0.1, whose specification no checksum covers."""

LARGEST = 1e30
"""Numbers of a specification are smaller; infinity and NaN are not."""

NAME_LENGTH = 100
"""Longest name of a model, characters: it becomes part of file names."""

ZOO = Path(__file__).parent / "zoo"
DEFAULT_MODEL = "buildings-30cm"

GSD_M = (1e-3, 1e4)
"""Meters per pixel of a model: from a millimeter to the coarsest weather satellites."""

MAX_CHIP_PX = 16_384
"""A chip of three bands takes 3 GB as floats, before the network."""

MAX_OPTION, MAX_STEPS, MAX_ITEMS = 4096, 64, 256
"""Largest number among a network's options, largest one that counts levels, blocks or convolutions, longest list."""

STEPS = ("depth", "blocks", "convolutions")
"""Endings of options that count what is built one by one."""

MAX_CLASSES = 254
"""Class indices 0 to 253: in label rasters 254 and 255 mean unsure and unknown."""

USUAL_COLORS = {
    "background": "#262626",
    "building": "#FF7A1A",
    "land": "#C9A66B",
    "road": "#B4B4BE",
    "rooftop": "#FF7A1A",
    "unlabelled": "#6E6E6E",
    "vegetation": "#3FA34D",
    "water": "#2F7FD6",
}
"""Colors of classes with these names unless a model has its own; buildings as in the mask."""

CONFIDENCE_TERMS = (
    "constant",
    "probability_mean",
    "probability_min",
    "area_log",
    "touches",
)
"""Terms of a building's confidence that may have a coefficient; `geoseg.vectorize.calibration` says what they are."""

OPTIONAL = ("auxiliary", "colors", "split_depth", "confidence")
"""Keys that a specification lacks if they say nothing."""

US_SPELLING = {"colours": "colors", "licence": "license", "optimiser": "optimizer"}
"""Keys of specifications and recipes as geoseg 0.1 spelled them, which are still read."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a network takes and returns, and how it was trained.

    Attributes:
        name: Name of the model.
        version: Version of the weights.
        network: Name in the registry of `geoseg.networks`.
        network_options: Its keyword arguments.
        bands: Names of the bands, in order.
        gsd_m: Meters per pixel on the ground that it was trained at.
        mean: Per band, of values divided by `pixel_max`.
        std: Per band, of values divided by `pixel_max`.
        pixel_max: Pixel value that counts as 1.
        classes: One name: a sigmoid channel. Several: softmax channels.
        target: The class whose probability becomes the mask, and whose footprints are outlined.
        auxiliary: Names of further sigmoid channels, after those of the classes. `edge` (a band inside the outline of
            each building) and `contact` (where two buildings touch or nearly do) help to tell buildings apart.
        colors: `#RRGGBB` by class name, for class rasters and pictures; `class_colors` fills in the others.
        chip_px: Largest chip, pixels.
        halo_px: Context on every side of a chip that is thrown away, pixels.
        stride_px: A chip's sides are multiples of this.
        threshold: Probability from which a pixel counts as the target class.
        min_area_m2: Smallest footprint that is kept.
        split_depth: How much the surface falls between two buildings that touch (`geoseg.vectorize.choose_depth`), in
            probability; 1 leaves them together. None is the usual depth.
        confidence: Coefficients by name of the term (`CONFIDENCE_TERMS`) of a building's confidence: the probability
            that it matches a true building at IoU 0.5. Without any it is the mean probability of its pixels.
        training: How and on what it was trained.
        metrics: Figures on test areas.
        license: Terms of the weights.
        description: One line.
    """

    name: str
    network: str
    bands: tuple[str, ...]
    gsd_m: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    version: str = "1"
    network_options: dict[str, Any] = field(default_factory=dict)
    pixel_max: float = 255.0
    classes: tuple[str, ...] = ("building",)
    target: str = "building"
    auxiliary: tuple[str, ...] = ()
    colors: dict[str, str] = field(default_factory=dict)
    chip_px: int = 512
    halo_px: int = 32
    stride_px: int = 32
    threshold: float = 0.5
    min_area_m2: float = 5.0
    split_depth: float | None = None
    confidence: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    license: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a specification that contradicts itself; lists become tuples."""
        self._check_types()
        for name in ("bands", "mean", "std", "classes", "auxiliary"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        core = self.chip_px - 2 * self.halo_px
        per_band = len(self.mean) == len(self.std) == len(self.bands) > 0
        facts = [
            (
                self.name.isprintable() and len(self.name.strip()) > 0 and len(self.name) <= NAME_LENGTH,
                f"a printable name of 1 to {NAME_LENGTH} characters",
                f"its name is {self.name!r}",
            ),
            (per_band, f"{len(self.bands)} of each", f"{len(self.mean)} means and {len(self.std)} standard deviations"),
            (all(s > 0 for s in self.std), "positive numbers", f"standard deviations {self.std}"),
            (
                GSD_M[0] <= self.gsd_m <= GSD_M[1],
                f"meters from {GSD_M[0]:g} to {GSD_M[1]:g}",
                f"gsd_m is {self.gsd_m}",
            ),
            (self.pixel_max > 0, "a value above 0", f"pixel_max is {self.pixel_max}"),
            (self.min_area_m2 >= 0, "square meters, 0 or more", f"min_area_m2 is {self.min_area_m2}"),
            (
                self.chip_px <= MAX_CHIP_PX,
                f"at most {MAX_CHIP_PX:,} pixels",
                f"chip_px is {self.chip_px}",
            ),
            fits_options(self.network_options),
            (self.halo_px >= 0, "0 or more", f"halo_px is {self.halo_px}"),
            (core > 0, "a chip larger than two halos", f"chip_px {self.chip_px} with halo_px {self.halo_px}"),
            (self.stride_px > 0, "a number above 0", f"stride_px is {self.stride_px}"),
            (
                self.chip_px % max(1, self.stride_px) == 0,
                f"a multiple of {self.stride_px}",
                f"chip_px is {self.chip_px}",
            ),
            (0 < self.threshold < 1, "a number between 0 and 1", f"threshold is {self.threshold}"),
            (
                self.split_depth is None or (_is_number(self.split_depth) and 0 < self.split_depth <= 1),
                "a number above 0 and up to 1",
                f"split_depth is {self.split_depth}",
            ),
            (self.target in self.classes, f"one of {', '.join(self.classes)}", f"target is {self.target!r}"),
            (
                len(set(self.channels)) == len(self.channels),
                "each name once",
                f"classes and auxiliary channels are {', '.join(self.channels)}",
            ),
            (
                len(self.classes) <= MAX_CLASSES,
                f"at most {MAX_CLASSES}, which 8 bits hold beside nodata",
                f"there are {len(self.classes)} classes",
            ),
            (
                self.colors.keys() <= set(self.classes)
                and all(re.fullmatch("#[0-9A-Fa-f]{6}", str(color)) for color in self.colors.values()),
                f"#RRGGBB for some of {', '.join(self.classes)}",
                f"colors are {self.colors}",
            ),
            (
                self.confidence.keys() <= set(CONFIDENCE_TERMS) and all(map(_is_number, self.confidence.values())),
                f"numbers for some of {', '.join(CONFIDENCE_TERMS)}",
                f"coefficients of the confidence are {self.confidence}",
            ),
        ]
        for found, expected, what in facts:
            if not found:
                raise BundleError(
                    f"The specification of model {self.name!r} does not fit: {what}; expected {expected}."
                )

    def _check_types(self) -> None:
        """Refuse values of another type than the fields have: the specification may come from any file."""
        for expected, is_one, names in (
            ("text", _is_text, ("name", "network", "version", "target", "license", "description")),
            ("a number", _is_number, ("gsd_m", "pixel_max", "threshold", "min_area_m2")),
            ("a whole number", _is_whole, ("chip_px", "halo_px", "stride_px")),
            ("a list of names", _are(_is_text), ("bands", "classes", "auxiliary")),
            ("a list of numbers", _are(_is_number), ("mean", "std")),
            ("a table", _is_table, ("network_options", "colors", "confidence", "training", "metrics")),
        ):
            for name in names:
                value = getattr(self, name)
                if not is_one(value):
                    raise BundleError(
                        f"The specification of model {str(self.name)[:NAME_LENGTH]!r} does not fit: {name} is "
                        f"{str(value)[:NAME_LENGTH]!r}; expected {expected}."
                    )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the network's channels: the classes, then the auxiliary ones."""
        return (*self.classes, *self.auxiliary)

    @property
    def target_index(self) -> int:
        """Channel of the target class."""
        return self.classes.index(self.target)

    @property
    def slug(self) -> str:
        """The name as part of a file name: other characters than A-Z a-z 0-9 . _ - are dashes, no dot comes first."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.") or "model"

    @property
    def class_colors(self) -> tuple[str, ...]:
        """`#RRGGBB` of every class, chosen here where the specification names none."""
        return choose_colors(self.classes, self.colors)

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as plain values, without `OPTIONAL` ones that are empty."""
        without = {name for name in OPTIONAL if not getattr(self, name)}  # as before there were any
        return {name: value for name, value in asdict(self).items() if name not in without}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and abs(float(value)) < LARGEST


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _are(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, list | tuple) and all(map(is_one, values))


def fits_options(options: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Return whether a network can be built with options in reasonable time, what is expected, and what was found."""
    pending, read = list(options.items()), 0
    while pending:
        key, value = pending.pop()
        read += 1
        if isinstance(value, Mapping):
            pending += value.items()
        elif isinstance(value, list | tuple):
            pending += [(key, one) for one in value]
        elif isinstance(value, Real):
            least, most = (0, MAX_STEPS) if str(key).endswith(STEPS) else (-MAX_OPTION, MAX_OPTION)
            if not value <= most or value < least:
                return False, f"{least:,} to {most:,}", f"the network's option {key} is {str(value)[:NAME_LENGTH]}"
        if len(pending) > MAX_ITEMS or read > MAX_ITEMS:
            return False, f"at most {MAX_ITEMS}", "the network has too many options"
    return True, "", ""


def us_spelling(table: Any) -> Any:
    """Return tables, also those within tables and lists, with the keys that used to be in British spelling renamed."""
    if isinstance(table, list):
        return [us_spelling(one) for one in table]
    if not isinstance(table, dict):
        return table
    return {US_SPELLING.get(key, key): us_spelling(value) for key, value in table.items()}


def choose_colors(classes: Sequence[str], colors: Mapping[str, str]) -> tuple[str, ...]:
    """Return `#RRGGBB` of every class: as named, else the usual one of that name, else hues far from each other."""
    # steps of the golden ratio: hues never come near each other
    hues = ((0.83 + number * (math.sqrt(5) - 1) / 2) % 1 for number in itertools.count())
    bright = (colorsys.hsv_to_rgb(hue, 0.6, 0.9) for hue in hues)
    others = ("#" + "".join(f"{round(255 * part):02X}" for part in rgb) for rgb in bright)
    return tuple(colors.get(name) or USUAL_COLORS.get(name.lower()) or next(others) for name in classes)


@dataclass(frozen=True)
class Bundle:
    """A model on disk.

    Attributes:
        spec: Its specification.
        path: The file.
        weights_sha256: Checksum of its weights; of an exported network that of the file.
        format: Format of the file.
        header: The metadata in the file.
    """

    spec: ModelSpec
    path: Path
    weights_sha256: str
    format: ModelFormat = ModelFormat.SAFETENSORS
    header: Mapping[str, str] = field(default_factory=dict, compare=False)

    @cached_property
    def key(self) -> str:
        """A short hash of specification and weights, for caches and run folders."""
        text = json.dumps(self.spec.to_dict(), sort_keys=True) + self.weights_sha256
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights, which are not read.

        Raises:
            BundleError: If the file is damaged.
        """
        from safetensors import safe_open

        try:
            with safe_open(self.path, framework="np") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except Exception as err:  # safetensors raises its own untyped errors
            raise _damaged(self.path, str(err)) from err

    def weights(self) -> "dict[str, Tensor]":
        """Load the weights as float32, after comparing their checksum.

        Raises:
            BundleError: If the file is damaged, or is an exported network, which does not hold its weights.
        """
        from safetensors.torch import load_file

        if self.format is not ModelFormat.SAFETENSORS:
            raise BundleError(
                f"{self.path} is an exported network ({self.format}): geoseg can run it, but cannot read its weights. "
                "Give the .safetensors bundle that it was exported from."
            )
        try:
            tensors = load_file(self.path)
        except Exception as err:  # safetensors raises its own untyped errors
            raise _damaged(self.path, str(err)) from err
        if (found := _checksum(tensors)) != self.weights_sha256:
            raise _damaged(
                self.path, f"its weights have checksum {found[:12]}, its header says {self.weights_sha256[:12]}"
            )
        return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"The model {path} is damaged: {why}. Copy or train it again.")


def _checksum(tensors: "Mapping[str, Tensor]") -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(
            tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        )  # numpy has no bfloat16
    return digest.hexdigest()


def save_bundle(path: str | Path, spec: ModelSpec, state_dict: "Mapping[str, Tensor]", *, half: bool = True) -> Path:
    """Write a bundle, aside and then renamed.

    Args:
        path: Where to; the suffix should be `.safetensors`.
        spec: The specification.
        state_dict: Weights of the network (not of the `Segmenter` around it).
        half: Store floating point weights as float16, but those with values beyond its range as they are.
    """
    from safetensors.torch import save_file

    path = Path(path)
    tensors = {}
    for name, tensor in state_dict.items():
        halved = tensor.half() if half and tensor.is_floating_point() else tensor
        kept = halved if halved.isfinite().all() else tensor
        tensors[name] = kept.detach().contiguous().clone()
    header = {
        "format": FORMAT,
        SPEC_KEY: json.dumps(spec.to_dict(), sort_keys=True),
        WEIGHTS_KEY: _checksum(tensors),
    }
    header[CHECKSUM_KEY] = _header_checksum(header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(path, shared=True) as aside:
        save_file(tensors, aside, metadata=header)
        aside.chmod(BUNDLE_MODE)
    return path


def _header_checksum(header: Mapping[str, str]) -> str:
    return hashlib.sha256(f"{header[SPEC_KEY]}\n{header[WEIGHTS_KEY]}".encode()).hexdigest()


def list_models() -> list[str]:
    """Return the names of the shipped models."""
    return sorted(p.stem for p in ZOO.glob("*.safetensors"))


def load_bundle(model: str | Path = DEFAULT_MODEL) -> Bundle:
    """Load a bundle's specification; its weights are loaded when they are needed.

    Args:
        model: Name of a shipped model, or path of a `.safetensors` bundle or of a network that was exported from one
            (`.onnx`, OpenVINO's `.xml`, `.pt2`).

    Raises:
        UnknownModelError: If there is no such model and no such file.
        PickledModelError: If opening the file would run code.
        BundleError: If the file is not a bundle, or its specification does not fit.
    """
    path = ZOO / f"{model}.safetensors" if str(model) in list_models() else Path(model)
    if not is_there(path) or not path.is_file():
        known = ", ".join(list_models()) or "none is shipped"
        raise UnknownModelError(
            f"There is no model {str(model)!r}: neither a file nor a shipped model. Shipped: {known}. "
            "Give one of these names or the path of a .safetensors bundle."
        )
    model_format = recognize(path)
    if model_format is not ModelFormat.SAFETENSORS:
        header = read_metadata(path, model_format)
        sha256 = file_sha256(path, model_format)
        return Bundle(_parse_spec(path, header[SPEC_KEY]), path, sha256, model_format, header)
    header = _read_header(path)
    bundle = Bundle(_parse_spec(path, header[SPEC_KEY]), path, header[WEIGHTS_KEY], model_format, header)
    if header.get(CHECKSUM_KEY, found := _header_checksum(header)) != found:
        raise _damaged(path, f"its specification and weights have checksum {found[:12]}, not what its header says")
    return bundle


def _read_header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = dict(file.metadata() or {})
    except Exception as err:  # safetensors raises its own untyped errors
        raise BundleError(f"{path} is not a safetensors file or is cut short ({err}). Copy or train it again.") from err
    if header.get("format") != FORMAT or not {SPEC_KEY, WEIGHTS_KEY} <= header.keys():
        raise BundleError(
            f"{path} holds weights without a geoseg specification (format {header.get('format')!r}, "
            f"expected {FORMAT!r}). Give a bundle written by `geoseg train`."
        )
    return header


def _parse_spec(path: Path, text: str) -> ModelSpec:
    known = {f.name for f in fields(ModelSpec)}
    try:
        values = {US_SPELLING.get(key, key): value for key, value in parse_json(text).items()}
        unknown = values.keys() - known
        if unknown:
            raise BundleError(f"{path} has unknown specification keys {', '.join(sorted(unknown))}. Update geoseg.")
        return ModelSpec(**values)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as err:
        raise BundleError(f"{path} has a specification that cannot be read ({err}). Copy or train it again.") from err
