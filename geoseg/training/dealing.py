"""Which blocks of a user's scenes train, which are chosen on, and which are held out for the comparison."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geoseg.bundle import ModelSpec
from geoseg.errors import LabelError
from geoseg.training.blocks import INSET, Block, Ground, choose_side, cut_blocks, write_areas

__all__ = ["Parts", "deal_blocks", "name_grounds", "summarise", "write_blocks"]

log = logging.getLogger(__name__)

PARTS = ("train", "choose", "held")
"""What blocks are for: training, choosing weights and threshold, and the comparison of the old model with the new."""

LEAST_KNOWN = 0.5
"""A block with truth on less of its pixels is trained on, never chosen or scored on."""

LEAST_TARGET_PX = 64
"""Each part needs this many pixels of the target class at least."""

MOST_CHOOSING = 4
"""Blocks to choose on: they are predicted again and again while the network trains."""

LITTLE_PX = 500_000
"""Less truth than this is worth a warning."""

Parts = list[dict[str, list[Block]]]
"""For each scene the blocks of each of `PARTS`."""


def deal_blocks(grounds: Sequence[Ground], spec: ModelSpec, target: int, seed: int) -> tuple[Parts, int]:
    """Cut the scenes into blocks and deal them out; return them and their side in pixels.

    A block's colour is (row + 2 column + scene) mod 4: no two of one colour touch, not even at a corner. One colour is
    held out, some of the colour opposite to it are chosen on, the rest trains.

    Args:
        grounds: The scenes.
        spec: The model's specification.
        target: Class index that each part must hold.
        seed: Which colour is tried first.

    Raises:
        LabelError: If no dealing leaves enough of the target in each part.
    """
    side = choose_side(grounds, stride_px=spec.stride_px)
    blocks = [cut_blocks(ground, side, target) for ground in grounds]
    for first in range(4):
        parts = _coloured(blocks, (seed + first) % 4)
        if all(_target_px(parts, part) >= LEAST_TARGET_PX for part in PARTS):
            return parts, side
    raise _too_few(blocks, side, spec)


def _coloured(blocks: Sequence[Sequence[Block]], held: int) -> Parts:
    colours = [
        [(b.row + 2 * b.col + n) % 4 if b.known >= LEAST_KNOWN else -1 for b in bs] for n, bs in enumerate(blocks)
    ]
    opposite = [(n, i) for n, row in enumerate(colours) for i, colour in enumerate(row) if colour == (held + 2) % 4]
    step = max(2, math.ceil(len(opposite) / MOST_CHOOSING))
    chosen = set(opposite[::step])
    parts: Parts = []
    for n, own in enumerate(blocks):
        dealt: dict[str, list[Block]] = {part: [] for part in PARTS}
        for i, block in enumerate(own):
            dealt["choose" if (n, i) in chosen else "held" if colours[n][i] == held else "train"].append(block)
        parts.append(dealt)
    return parts


def _target_px(parts: Parts, part: str) -> int:
    return sum(block.target_px for dealt in parts for block in dealt[part])


def _too_few(blocks: Sequence[Sequence[Block]], side: int, spec: ModelSpec) -> LabelError:
    everything = [block for own in blocks for block in own]
    full = [block for block in everything if block.known >= LEAST_KNOWN]
    good = [block for block in full if block.target_px >= LEAST_TARGET_PX]
    metres, least_ha = side * spec.gsd_m, LITTLE_PX * spec.gsd_m**2 / 1e4
    return LabelError(
        f"there are too few labels to fine-tune on: of {len(everything)} blocks of {side} px ({metres:.0f} m) with any "
        f"truth, {len(full)} have it on half of their pixels, and {len(good)} of these hold {LEAST_TARGET_PX} px of "
        f"{spec.target}. At least 4 labelled blocks are needed, with {spec.target} in 3: to train, to choose and to "
        f"compare on; {LITTLE_PX / 1e6:g} Mpx ({least_ha:.1f} ha) and more is where it begins to pay. Label more "
        "ground, all of every piece, and say with --areas what is labelled"
    )


def summarise(grounds: Sequence[Ground], parts: Parts, side: int) -> dict[str, Any]:
    """Say how many blocks do what, and return it; warn where there is little truth."""
    known = sum(ground.known_px for ground in grounds)
    if known < LITTLE_PX:
        log.warning("%.2f Mpx of truth are little; %g and more is better", known / 1e6, LITTLE_PX / 1e6)
    counts = {part: sum(len(dealt[part]) for dealt in parts) for part in PARTS}
    log.info("%d blocks of about %d px train, %d are chosen on, %d are held out", *_in_order(counts, side))
    return {**counts, "side_px": side, "inset_px": _inset(side), "known_px": known}


def _in_order(counts: Mapping[str, int], side: int) -> tuple[int, ...]:
    return counts["train"], side, counts["choose"], counts["held"]


def _inset(side: int) -> int:
    return max(2, side // INSET)


def write_blocks(folder: Path, grounds: Sequence[Ground], parts: Parts, side: int) -> list[Path]:
    """Write a GeoPackage of blocks per scene, once; `hidden` are whole held-out blocks, `held` what is scored."""
    paths = [folder / "blocks" / f"{name}.gpkg" for name in name_grounds(grounds)]
    for path, ground, dealt in zip(paths, grounds, parts, strict=True):
        if not path.is_file():
            whole = [(name, b.outline(ground)) for part, name in _WHOLE for b in dealt[part]]
            inner = [(p, b.outline(ground, inset_px=_inset(side))) for p in PARTS[1:] for b in dealt[p]]
            write_areas(path, ground.grid, whole + inner)
    return paths


_WHOLE = (("train", "train"), ("held", "hidden"))


def name_grounds(grounds: Sequence[Ground]) -> list[str]:
    """Return a name for each scene that no other has."""
    stems = [re.sub(r"[^\w-]+", "_", ground.name) for ground in grounds]
    return [stem if stems.count(stem) == 1 else f"{stem}_{n}" for n, stem in enumerate(stems)]
