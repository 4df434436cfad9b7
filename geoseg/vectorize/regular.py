"""Regular outlines: straight walls, right angles where the pixels support them, and walls that neighbors share.

Every arc (`geoseg.vectorize.arcs`) becomes a chain of straight walls. A wall is a line fitted to the middles of the
pixel edges along it, parallel, perpendicular or at 45 degrees to the main direction of its building where that moves it
by less than the pixels can tell, else in its own direction. Vertices are where walls meet; a junction is one point for
all walls that end there. A building whose walls strayed too far, crossed or changed its area too much gets a simple
outline, or keeps that of the pixels.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.vectorize.arcs import UNIT, Arcs, cut_arcs, join_arcs
from geoseg.vectorize.generalize import RAW, REGULAR, SIMPLE, Outlines, are_sound, part_overlaps
from geoseg.vectorize.rings import PolygonArray, reading_order
from geoseg.vectorize.walls import (
    FREE,
    Chains,
    Flags,
    Floats,
    Indices,
    Lines,
    Points,
    Walls,
    find_directions,
    find_segments,
    quarter_angle,
    simple_arcs,
    sum_by,
    trim,
    unit_vectors,
)

NEIGHBORS = 10
"""How many steps from neighbor to neighbor an outline may depend on, until overlaps are cut off.

A polygon's arcs take three: a gap between two is closed where no third ends. The directions of two neighbors are
averaged, the junctions of a tiny arc joined, and junctions are moved into straight walls, each a step, the last twice.
A building that is not made regular changes the walls of its neighbors, one that is not made simple their ends, and all
that ends at a junction takes part in where it lies.
"""
AGREE = 0.669
"""Cosine of four times the largest angle, 12 degrees, between main directions that are averaged."""
AGREE_PX = 0.5
"""How far the ends of a wall may move when main directions are averaged, in tolerances."""
SNAP_SINE = 0.71
"""Sine of the largest angle by which a wall is turned into the main direction, 45 degrees."""
SURE_SINE = 0.09
"""Sine of the angle within which a wall of any length is turned, 5 degrees."""
DIAGONAL_PX = 10.0
"""Length from which a wall is turned to 45 degrees, in tolerances."""
DIAGONAL_SINE = 0.17
"""Sine of the largest angle by which a wall is turned to 45 degrees, 10 degrees."""
SLOW_COSINE, STRAIGHT_COSINE = 0.72, 0.998
"""Cosine of the largest turn, 44 degrees, and of the smallest, 4 degrees, between walls of a round building."""
ROUND = 0.7
"""Share of such walls from which a building is round."""
SNAP_PX, SURE_PX = 2.0, 1.5
"""How far the ends of a wall may move when it is turned, and when it is turned by little, in tolerances."""
CUT_PX, STEP_PX = 4.4, 1.6
"""Length up to which a piece in another direction only cuts a corner, and a step in a wall goes, in tolerances."""
SHORT_PX = 0.9
"""Shortest edge of an arc that ends in a junction, in tolerances."""
LONG_ARC = 16
"""Length from which an arc that strays is merged with more care, in tolerances."""
SHORT_ARC = 2.0
"""Length up to which an arc vanishes and its two junctions become one, in tolerances."""
STRAIGHTEN = 2
"""How often junctions are moved into straight walls."""


@dataclass(frozen=True, slots=True)
class Regularize:
    """Makes regular outlines; buildings that have none get simple ones, or keep those of the pixels.

    Attributes:
        tolerance_px: Smallest step in a wall that is kept, pixels.
        max_area_change: Largest change of a building's area, as a share of a band along its outline that is a
            tolerance wide.
        aspect: Height of a pixel on the ground in its widths: angles are right there.
    """

    tolerance_px: float = 1.0
    max_area_change: float = 0.5
    aspect: float = 1.0

    @property
    def max_shift_px(self) -> float:
        """Largest distance of a pixel edge's middle from its wall, pixels."""
        return 3 * self.tolerance_px

    @property
    def steps(self) -> tuple[float, ...]:
        """See `Generalizer.steps`.

        Outlines overlap only where both polygons have moved there; what is cut off one is looked at once more.
        """
        reach_px = self.reach_px / min(1.0, self.aspect)
        return (reach_px, reach_px, *(0.0,) * NEIGHBORS)

    @property
    def reach_px(self) -> float:
        """Distance between two polygons beyond which their outlines cannot overlap, widths of pixels.

        Walls stay within three tolerances of the middles of their pixel edges; vertices and junctions lie within four
        of some, and a pixel.
        """
        return 8 * self.tolerance_px + 4 * max(1.0, self.aspect)

    def outlines(self, polygons: PolygonArray, shift: Indices | None = None) -> Outlines:
        """Return new outlines of valid polygons in canonical form whose interiors are disjoint.

        Args:
            polygons: The polygons, `(polygon,)`; in reading order if `shift` is given.
            shift: See `cut_arcs`.
        """
        if not len(polygons):
            return Outlines(polygons, np.zeros(0, np.int8), np.zeros((0, 2)))
        order = reading_order(polygons)
        raw = polygons[order]
        arcs = cut_arcs(raw, shift, close_px=self.tolerance_px).stretched(self.aspect)
        points = Points.of(arcs)
        chains = Chains.of(arcs, points.xy, 0.75 * self.tolerance_px)
        segments = find_segments(arcs, points, chains)
        cos4, sin4, strength = find_directions(arcs, segments, len(raw))
        cos4, sin4 = _agree(arcs, cos4, sin4, strength, self.tolerance_px)
        walls = _classify(arcs, segments, _of_arcs(arcs, cos4, sin4, strength), self.tolerance_px)
        walls, is_good = self._merged(arcs, points, walls)
        tiny = _tiny_arcs(arcs, SHORT_ARC * self.tolerance_px)
        junction, tiny = _junctions(arcs, walls, tiny, self.max_shift_px)
        made = _draw(arcs, points, walls, junction, self.tolerance_px)
        for _ in range(STRAIGHTEN):
            junction = _straighten(arcs, made, junction, self.tolerance_px)
            made = _end_at(arcs, made, junction, tiny)
        simple, is_raw = simple_arcs(arcs, chains)
        is_good &= ~(arcs.is_closed & (np.diff(made[1]) < 3))
        is_round = _is_round(arcs, segments, len(raw))
        simple = _end_at(arcs, simple, junction, tiny)
        scale = np.array([1.0, self.aspect])
        made, simple = ((np.rint(lines[0] / scale * UNIT) / UNIT, lines[1]) for lines in (made, simple))
        drawn = _Drawings(made, simple, is_good, is_raw)

        found, kind = self._choose(arcs, drawn, raw, is_round)
        found, kind = part_overlaps(raw, found, kind)
        back = np.argsort(order)
        direction = np.column_stack(quarter_angle(cos4, sin4)) / scale
        return Outlines(found[back], kind[back], direction[back])

    def _merged(self, arcs: Arcs, points: Points, walls: Walls) -> tuple[Walls, Flags]:
        """Return merged walls, and for which arcs they stay near the pixels; where too much was dropped, less is."""
        merged = _merge(arcs, points, walls, self.tolerance_px)
        is_good = self._may_replace(arcs, points, merged)
        for careful in (0.5, 0.0):
            strays = ~is_good & (arcs.size >= LONG_ARC * self.tolerance_px)
            again = walls.take(strays[walls.arc])
            if not len(again.arc):
                break
            again = _merge(arcs, points, again, self.tolerance_px, careful)
            is_good |= self._may_replace(arcs, points, again)
            both = Walls.concatenate(merged.take(~strays[merged.arc]), again)
            merged = both.take(np.argsort(both.arc, kind="stable"))
        return merged, is_good

    def _may_replace(self, arcs: Arcs, points: Points, walls: Walls) -> Flags:
        """Return True for arcs whose walls stay near the pixels, `(arc,)`."""
        count = len(arcs.left)
        good = np.zeros(count, bool)
        if not len(walls.arc):
            return good
        good[walls.arc] = True
        size = walls.last - walls.first + 1
        wall = np.repeat(np.arange(len(size)), size)
        crack = np.arange(len(wall)) - np.repeat(np.cumsum(size) - size, size) + walls.first[wall]
        nx, ny = walls.normal.T
        away = np.abs(nx[wall] * points.xy[crack, 0] + ny[wall] * points.xy[crack, 1] - walls.offset[wall])
        far = np.maximum.reduceat(away, np.cumsum(size) - size) > self.max_shift_px
        good[walls.arc[far]] = False
        same = walls.arc[1:] == walls.arc[:-1]
        gap = np.where(same, walls.first[1:] - walls.last[:-1], 0)
        good[walls.arc[1:][gap > 6 * max(1.0, self.tolerance_px)]] = False
        return good

    def _choose(
        self, arcs: Arcs, drawn: "_Drawings", raw: PolygonArray, is_round: Flags
    ) -> tuple[PolygonArray, NDArray[np.int8]]:
        """Return the most regular outline of each polygon that is faithful, and its kind."""
        found, _ = join_arcs(arcs, *_mix(drawn.regular, drawn.simple, drawn.is_good))
        fails = ~self._is_faithful(found, raw) | is_round
        takes = drawn.is_good & ~_of_any(arcs, fails)
        has_regular = _have_any(arcs, takes, len(raw))
        kind = np.where(has_regular & ~fails, REGULAR, SIMPLE).astype(np.int8)
        if fails.any():
            changed = np.flatnonzero(_have_any(arcs, _of_any(arcs, fails), len(raw)))
            mixed = _mix(drawn.regular, drawn.simple, takes)
            found[changed] = join_arcs(arcs, *mixed)[0][changed]
            broken = np.zeros(len(raw), bool)
            broken[changed] = ~self._is_faithful(found[changed], raw[changed], looser=2.0)
            if broken.any():
                stays = np.zeros(len(arcs.junction) + 1, bool)  # junctions of what is broken do not move
                ends = _of_any(arcs, broken) & ~arcs.is_closed
                stays[arcs.begin[ends]] = stays[arcs.end[ends]] = True
                back = _of_any(arcs, broken) | stays[arcs.begin] | stays[arcs.end]
                mixed = _mix(_stay(arcs, drawn.simple, stays, np.rint(arcs.junction / [1.0, self.aspect])), mixed, back)
                changed = np.flatnonzero(_have_any(arcs, back, len(raw)))
                found[changed] = join_arcs(arcs, *mixed)[0][changed]
                broken[:] = False
                broken[changed] = ~self._is_faithful(found[changed], raw[changed], looser=2.0)
                found[broken], kind[broken] = raw[broken], RAW
        kind[arcs.left[drawn.is_raw & arcs.is_exterior]] = RAW
        return found, kind

    def _is_faithful(self, new: PolygonArray, raw: PolygonArray, *, looser: float = 1.0) -> Flags:
        """Return True for outlines that may replace those of the pixels."""
        change = np.abs(shapely.area(new) - shapely.area(raw))
        band = 0.8 * shapely.length(raw) * max(1.0, self.tolerance_px)  # stairs are longer than walls
        limit = np.minimum(self.max_area_change * band, 0.25 * shapely.area(raw)) * looser
        same_holes = shapely.get_num_interior_rings(new) == shapely.get_num_interior_rings(raw)
        faithful: Flags = are_sound(new) & same_holes & (change <= limit)
        return faithful


@dataclass(frozen=True, slots=True, eq=False)
class _Drawings:
    """Arcs drawn in several ways.

    Attributes:
        regular: Straight walls.
        simple: Without the points that Douglas and Peucker's rule drops, between the junctions of the walls.
        is_good: The walls stay near the pixels, `(arc,)`.
        is_raw: Too small to be simplified, so that `simple` has the corners of the pixels, `(arc,)`.
    """

    regular: Lines
    simple: Lines
    is_good: Flags
    is_raw: Flags


def _agree(arcs: Arcs, cos: Floats, sin: Floats, strength: Floats, tolerance_px: float) -> tuple[Floats, Floats]:
    """Average the direction of each polygon with those of the polygons that it shares a wall with.

    Two directions are averaged where they cannot be told apart: turned from one into the other, the walls of the
    smaller polygon would move by little.
    """
    shared = arcs.right >= 0
    pairs = np.unique(np.sort(np.column_stack((arcs.left[shared], arcs.right[shared])), axis=1), axis=0)
    if not len(pairs):
        return cos, sin
    a, b = pairs.T
    near = cos[a] * cos[b] + sin[a] * sin[b] >= AGREE
    turn = np.abs(cos[a] * sin[b] - sin[a] * cos[b]) / 4
    near &= turn * np.sqrt(np.minimum(strength[a], strength[b])) / 2 <= AGREE_PX * tolerance_px
    a, b = np.concatenate((a[near], b[near])), np.concatenate((b[near], a[near]))
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    x = strength * cos + np.bincount(a, (strength * cos)[b], len(cos))
    y = strength * sin + np.bincount(a, (strength * sin)[b], len(cos))
    alone = np.bincount(a, minlength=len(cos)) == 0
    group_cos, group_sin = unit_vectors(x, y)
    return np.where(alone, cos, group_cos), np.where(alone, sin, group_sin)


def _of_arcs(arcs: Arcs, cos: Floats, sin: Floats, strength: Floats) -> tuple[Floats, Floats]:
    """Return the main direction `(cos, sin)` of each arc: that of the polygon with the longer straight walls."""
    a, b = arcs.left, np.where(arcs.right >= 0, arcs.right, arcs.left)
    stronger = np.where(strength[b] > strength[a], b, a)
    return quarter_angle(cos[stronger], sin[stronger])


def _classify(arcs: Arcs, segments: Walls, direction: tuple[Floats, Floats], tolerance_px: float) -> Walls:
    """Give each wall its class, and those of classes 0 to 3 the direction of the class."""
    cos, sin = (part[segments.arc] for part in direction)
    ux, uy = segments.normal[:, 1], -segments.normal[:, 0]
    along, across = ux * cos + uy * sin, uy * cos - ux * sin
    steep = np.abs(across) > np.abs(along)
    sine = np.minimum(np.abs(along), np.abs(across))
    moves = segments.length / 2 * sine / tolerance_px
    snaps = ((sine <= SURE_SINE) & (moves <= SURE_PX)) | ((sine <= SNAP_SINE) & (moves <= SNAP_PX))
    diagonal_sine = np.abs(np.abs(along) - np.abs(across)) * 0.5**0.5
    is_diagonal = ~snaps & (diagonal_sine <= DIAGONAL_SINE) & (segments.length >= DIAGONAL_PX * tolerance_px)
    falls = along * across < 0
    kind = np.where(snaps, steep.astype(np.int64), np.where(is_diagonal, 2 + falls, FREE))
    return _with_class(segments, kind, cos, sin)


def _with_class(walls: Walls, kind: Indices, cos: Floats, sin: Floats) -> Walls:
    """Turn walls of classes 0 to 3 about their middle into the direction of the class."""
    root = 0.5**0.5
    of_class = np.array([[0, 1], [-1, 0], [-root, root], [root, root], [0, 0]], np.float64)[kind]
    # A normal (p, q) in the frame of the main direction is (p cos - q sin, p sin + q cos) in pixels.
    normal = np.column_stack((of_class[:, 0] * cos - of_class[:, 1] * sin, of_class[:, 0] * sin + of_class[:, 1] * cos))
    normal = np.where((kind == FREE)[:, None], walls.normal, normal)
    return Walls(walls.arc, walls.first, walls.last, walls.length, kind, normal, walls.offset, walls.weight)


def _refit(points: Points, walls: Walls) -> Walls:
    """Move walls to the middle of their cracks."""
    count, x, y, *_ = points.moments(*trim(walls.first, walls.last))
    x, y = x + points.base[walls.arc, 0], y + points.base[walls.arc, 1]
    offset = walls.normal[:, 0] * x + walls.normal[:, 1] * y
    return Walls(walls.arc, walls.first, walls.last, walls.length, walls.kind, walls.normal, offset, count)


def _merge(arcs: Arcs, points: Points, walls: Walls, tolerance_px: float, share: float = 1.0) -> Walls:
    """Drop pieces that only cut a corner and steps below the tolerance, and make one of walls on one line."""
    walls = _refit(points, walls)
    for _ in range(3):
        cut = (walls.kind >= 2) & (walls.length < share * CUT_PX * tolerance_px)
        step = (walls.kind < 2) & (walls.length < share * STEP_PX * tolerance_px)
        dropped = cut | step
        remains = np.bincount(walls.arc[~dropped], minlength=len(arcs.left)) > 0
        walls = walls.take(~dropped | ~remains[walls.arc])
        same = (walls.arc[1:] == walls.arc[:-1]) & (walls.kind[1:] == walls.kind[:-1]) & (walls.kind[1:] != FREE)
        same &= np.abs(walls.offset[1:] - walls.offset[:-1]) < tolerance_px
        head = np.flatnonzero(np.append(True, ~same)) if len(walls.arc) else np.zeros(0, np.int64)
        if len(head) == len(walls.arc):
            break
        tail = np.append(head[1:], len(walls.arc)) - 1
        length = np.add.reduceat(walls.length, head)
        columns = walls.take(head)
        walls = _refit(
            points,
            Walls(
                columns.arc, columns.first, walls.last[tail], length, columns.kind, columns.normal, columns.offset,
                columns.weight,
            ),
        )  # fmt: skip
    # The first and the last wall of a closed arc may be one.
    head = np.flatnonzero(np.diff(walls.arc, prepend=-1))
    tail = np.append(head[1:], len(walls.arc)) - 1
    joins = arcs.is_closed[walls.arc[head]] & (walls.kind[head] == walls.kind[tail]) & (walls.kind[head] != FREE)
    joins &= (np.abs(walls.offset[head] - walls.offset[tail]) < tolerance_px) & (tail - head > 1)
    head, tail = head[joins], tail[joins]
    weight = walls.weight[head] + walls.weight[tail]
    offset = (walls.offset[head] * walls.weight[head] + walls.offset[tail] * walls.weight[tail]) / weight
    walls.offset[head] = walls.offset[tail] = offset
    return walls


def _ends(walls: Walls, count: int) -> tuple[Indices, Indices]:
    """Return the first and the last wall of each arc; -1 where there is none."""
    head, tail = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    at = np.flatnonzero(np.diff(walls.arc, prepend=-1))
    head[walls.arc[at]], tail[walls.arc[at]] = at, np.append(at[1:], len(walls.arc)) - 1
    return head, tail


def _tiny_arcs(arcs: Arcs, most_px: float) -> Flags:
    """Return True for short arcs whose two junctions have no other such arc, `(arc,)`."""
    tiny: Flags = ~arcs.is_closed & (arcs.begin != arcs.end) & (arcs.size <= most_px)
    ends = np.bincount(np.concatenate((arcs.begin[tiny], arcs.end[tiny])), minlength=len(arcs.junction))
    tiny[tiny] = (ends[arcs.begin[tiny]] == 1) & (ends[arcs.end[tiny]] == 1)
    return tiny


def _junctions(arcs: Arcs, walls: Walls, tiny: Flags, max_shift_px: float) -> tuple[Floats, Flags]:
    """Return where junctions come to lie: the point nearest to all walls that end there, pixels, `(junction, 2)`.

    The two junctions of a tiny arc become one, if it is near enough to both; which arcs vanish so is returned too.
    """
    place = arcs.junction.astype(np.float64)
    count = len(place)
    if not count:
        return place, tiny
    head, tail = _ends(walls, len(arcs.left))
    arc = np.flatnonzero(~arcs.is_closed & (head >= 0))
    junction = np.column_stack((arcs.begin[arc], arcs.end[arc])).ravel()
    wall = np.column_stack((head[arc], tail[arc])).ravel()
    is_tiny = np.repeat(tiny[arc], 2)

    def nearest(site: Indices, origin: Floats, use: Flags) -> Floats:
        """Return how far the point nearest to all walls of a site lies from its origin."""
        at, n = site[junction[use]], walls.normal[wall[use]]
        miss = walls.offset[wall[use]] - (n * origin[at]).sum(axis=1)
        weight = np.where(np.abs(miss) <= max_shift_px, np.minimum(walls.weight[wall[use]], 20), 0)
        nx, ny, pull = n[:, 0], n[:, 1], 0.05
        a, b, c, p, q = (
            sum_by(at, weight * value, count) for value in (nx * nx, nx * ny, ny * ny, nx * miss, ny * miss)
        )
        a, c = a + pull, c + pull
        det = a * c - b * b
        return np.column_stack(((c * p - b * q) / det, (a * q - b * p) / det))

    own = np.arange(count)
    move = nearest(own, place, np.ones(len(wall), bool))
    move[(move * move).sum(axis=1) > max_shift_px**2] = 0
    found = place + move
    if tiny.any():
        one, other = np.minimum(arcs.begin[tiny], arcs.end[tiny]), np.maximum(arcs.begin[tiny], arcs.end[tiny])
        site, origin = own.copy(), place.copy()
        site[other], origin[one] = one, (place[one] + place[other]) / 2
        both = (origin + nearest(site, origin, ~is_tiny))[one]
        far = np.maximum(((both - place[one]) ** 2).sum(axis=1), ((both - place[other]) ** 2).sum(axis=1))
        joins = far <= max_shift_px**2
        found[one[joins]] = found[other[joins]] = both[joins]
        tiny = tiny.copy()
        tiny[tiny] = joins
    return np.rint(found * UNIT) / UNIT, tiny


def _draw(arcs: Arcs, points: Points, walls: Walls, junction: Floats, tolerance_px: float) -> tuple[Floats, Indices]:
    """Return the corners where walls meet, arc by arc, and the number of them before each arc."""
    count = len(arcs.left)
    head, tail = _ends(walls, count)
    closed = arcs.is_closed
    offset = walls.offset.copy()
    # The outermost walls of an open arc go through its junctions, unless there is but one or it is too far away.
    has = np.flatnonzero(~closed & (head >= 0))
    steps = np.zeros((2, count), bool)
    for side, (wall_of, end_of) in enumerate(((head, arcs.begin), (tail, arcs.end))):
        wall = wall_of[has]
        through = (walls.normal[wall] * junction[end_of[has]]).sum(axis=1)
        near = np.abs(through - walls.offset[wall]) <= tolerance_px
        moves = near & (head[has] != tail[has])
        offset[wall[moves]] = through[moves]
        steps[side, has[~near]] = True
    wall = np.arange(len(walls.arc))
    following = np.append(wall[1:], 0)
    is_tail = wall == tail[walls.arc]
    following[is_tail] = head[walls.arc[is_tail]]
    meets = ~is_tail | closed[walls.arc]
    a, b = wall[meets], following[meets]
    n, m = walls.normal[a], walls.normal[b]
    between = (points.xy[walls.last[a]] + points.xy[walls.first[b]]) / 2
    det = n[:, 0] * m[:, 1] - n[:, 1] * m[:, 0]
    crosses = np.abs(det) > 0.3
    safe = np.where(crosses, det, 1)
    cross = np.column_stack(
        ((offset[a] * m[:, 1] - offset[b] * n[:, 1]) / safe, (n[:, 0] * offset[b] - m[:, 0] * offset[a]) / safe)
    )
    crosses &= ((cross - between) ** 2).sum(axis=1) <= (3 * tolerance_px + 1) ** 2
    foot_a = between + (offset[a] - (n * between).sum(axis=1))[:, None] * n
    foot_b = between + (offset[b] - (m * between).sum(axis=1))[:, None] * m
    is_one_line = (walls.kind[a] == walls.kind[b]) & (walls.kind[a] != FREE) & (offset[a] == offset[b]) & (a != b)
    is_near = ((foot_a - foot_b) ** 2).sum(axis=1) < tolerance_px**2
    first = np.where(crosses[:, None], cross, np.where(is_near[:, None], (foot_a + foot_b) / 2, foot_a))
    arc, number = walls.arc[a], a.astype(np.float64)
    two = ~crosses & ~is_near
    parts = [(arc[~is_one_line], number[~is_one_line], first[~is_one_line]), (arc[two], number[two] + 0.5, foot_b[two])]
    for side, (wall_of, end_of) in enumerate(((head, arcs.begin), (tail, arcs.end))):
        is_open = np.flatnonzero(~closed)
        order = np.full(len(is_open), -2.0) if side == 0 else np.full(len(is_open), len(walls.arc) + 1.0)
        parts.append((is_open, order, junction[end_of[is_open]]))
        step = np.flatnonzero(steps[side])
        at = junction[end_of[step]]
        normal = walls.normal[wall_of[step]]
        foot = at + (walls.offset[wall_of[step]] - (normal * at).sum(axis=1))[:, None] * normal
        parts.append((step, np.full(len(step), -1.0 if side == 0 else len(walls.arc) + 0.5), foot))
    arc, rank, xy = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((rank, arc))
    arc, xy = arc[order], np.rint(xy[order] * UNIT) / UNIT
    # Of two points that are close together the one beside the junction goes.
    is_end = np.append(True, arc[1:] != arc[:-1]) & ~closed[arc]
    is_end |= np.append(arc[1:] != arc[:-1], True) & ~closed[arc]
    short = (arc[1:] == arc[:-1]) & (((xy[1:] - xy[:-1]) ** 2).sum(axis=1) < (SHORT_PX * tolerance_px) ** 2)
    keep = np.ones(len(arc), bool)
    keep[1:][short & is_end[:-1]] = False
    keep[:-1][short & is_end[1:]] = False
    keep |= is_end
    arc, xy = arc[keep], xy[keep]
    return xy, np.concatenate(([0], np.cumsum(np.bincount(arc, minlength=count))))


def _straighten(arcs: Arcs, lines: Lines, junction: Floats, tolerance_px: float) -> Floats:
    """Move junctions into the straight wall that passes them, where one of the polygons has such a wall there."""
    xy, start = lines
    forward, arc = arcs.piece_forward, arcs.piece_arc
    first, last = start[arc], start[arc + 1] - 1
    ends, after = np.where(forward, arcs.end[arc], arcs.begin[arc]), np.where(forward, first + 1, last - 1)
    before = np.where(forward, last - 1, first + 1)
    ring = np.flatnonzero(np.diff(arcs.piece_ring, prepend=-1))
    following = np.arange(1, len(arc) + 1)
    following[np.append(ring[1:], len(arc)) - 1] = ring
    visit = np.flatnonzero(ends >= 0)
    at = ends[visit]
    a, b, here = xy[before[visit]], xy[after[following[visit]]], junction[at]
    u, w, chord = here - a, b - here, b - a
    cross = np.abs(u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0])
    size_u, size_w, size = (np.sqrt((part * part).sum(axis=1)) for part in (u, w, chord))
    straight = ((u * w).sum(axis=1) > 0) & (cross < 0.4 * size_u * size_w) & (np.minimum(size_u, size_w) > 0)
    straight &= cross <= tolerance_px * size
    visit, at, a, chord, size, cross = (part[straight] for part in (visit, at, a, chord, size, cross))
    order = np.lexsort((visit, -size, at))  # the longest wall
    chosen = order[np.flatnonzero(np.diff(at[order], prepend=-1))]
    a, chord = a[chosen], chord[chosen]
    share = ((junction[at[chosen]] - a) * chord).sum(axis=1) / (chord * chord).sum(axis=1)
    moved = junction.copy()
    moved[at[chosen]] = np.rint((a + share[:, None] * chord) * UNIT) / UNIT
    return moved


def _end_at(arcs: Arcs, lines: Lines, junction: Floats, vanishes: Flags) -> Lines:
    """Let arcs begin and end at other junctions; those that vanish have no points between."""
    xy, start = lines[0].copy(), lines[1]
    is_open = ~arcs.is_closed
    xy[start[:-1][is_open]], xy[start[1:][is_open] - 1] = junction[arcs.begin[is_open]], junction[arcs.end[is_open]]
    if not vanishes.any():
        return xy, start
    arc = np.repeat(np.arange(len(start) - 1), np.diff(start))
    position = np.arange(len(xy))
    keep = ~vanishes[arc] | (position == start[arc]) | (position == start[arc + 1] - 1)
    return xy[keep], np.concatenate(([0], np.cumsum(np.bincount(arc[keep], minlength=len(start) - 1))))


def _stay(arcs: Arcs, lines: Lines, stays: Flags, places: Floats) -> Lines:
    """Let arcs begin and end at some of the junctions as they were; the last flag is that of closed arcs, False."""
    xy, start = lines[0].copy(), lines[1]
    for end, at in ((arcs.begin, start[:-1]), (arcs.end, start[1:] - 1)):
        back = stays[end]
        xy[at[back]] = places[end[back]]
    return xy, start


def _of_any(arcs: Arcs, polygons: Flags) -> Flags:
    """Return True for arcs that bound any of some polygons, `(arc,)`."""
    found: Flags = polygons[arcs.left] | (polygons[arcs.right] & (arcs.right >= 0))
    return found


def _have_any(arcs: Arcs, chosen: Flags, count: int) -> Flags:
    """Return True for polygons that any of some arcs bounds, `(polygon,)`."""
    found = np.zeros(count, bool)
    found[arcs.left[chosen]] = True
    found[arcs.right[chosen & (arcs.right >= 0)]] = True
    return found


def _is_round(arcs: Arcs, walls: Walls, count: int) -> Flags:
    """Return True for polygons along most of whose outline walls turn a little, and all the same way."""
    head, tail = _ends(walls, len(arcs.left))
    wall = np.arange(len(walls.arc))
    following, previous = np.minimum(wall + 1, tail[walls.arc]), np.maximum(wall - 1, head[walls.arc])
    closed = arcs.is_closed[walls.arc]
    following = np.where(closed & (wall == tail[walls.arc]), head[walls.arc], following)
    previous = np.where(closed & (wall == head[walls.arc]), tail[walls.arc], previous)
    nx, ny = walls.normal.T
    cosine = [nx * nx[other] + ny * ny[other] for other in (following, previous)]
    sine = [nx * ny[following] - ny * nx[following], nx[previous] * ny - ny[previous] * nx]
    same_way = cosine[0] * cosine[1] * sine[0] * sine[1] > 0
    bends = same_way & np.logical_and.reduce([(c > SLOW_COSINE) & (c < STRAIGHT_COSINE) for c in map(np.abs, cosine)])
    length, bent = np.full(count, 1e-9), np.zeros(count)
    for side in (arcs.left, arcs.right):
        polygon = side[walls.arc]
        is_wall = polygon >= 0
        length += np.bincount(polygon[is_wall], walls.length[is_wall], count)
        bent += np.bincount(polygon[is_wall], (walls.length * bends)[is_wall], count)
    is_round: Flags = bent > ROUND * length
    return is_round


def _mix(a: Lines, b: Lines, takes_a: Flags) -> Lines:
    """Return the points of each arc from the first or the second of two drawings."""
    size = np.where(takes_a, np.diff(a[1]), np.diff(b[1]))
    start = np.concatenate(([0], np.cumsum(size)))
    arc = np.repeat(np.arange(len(size)), size)
    position = np.arange(start[-1]) - start[arc]
    from_a = takes_a[arc]
    xy = np.empty((len(arc), 2))
    xy[from_a] = a[0][(a[1][arc] + position)[from_a]]
    xy[~from_a] = b[0][(b[1][arc] + position)[~from_a]]
    return xy, start
