"""Which pixels are one building: a watershed of the whole scene, computed block by block.

A surface says how far inside a building each pixel lies, in whole numbers. Two summits of it are two buildings if the
surface falls by at least `depth` below the lower of them on every way from one to the other (the summit's *dynamics*:
Grimaud, "A new measure of contrast: the dynamics", SPIE 1769, 1992). Every other pixel of the mask belongs to the
building that it reaches without going lower than it must.

That is a minimum spanning forest (Meyer, "Minimum spanning forests for morphological segmentation", 1994; Cousty,
Bertrand, Najman and Couprie, "Watershed cuts", IEEE TPAMI 31(8), 2009). Pixels have a total order: the higher comes
first, of equals the one with the smaller row, then column. A path between two 4-neighbors has the order of its lower
pixel, then that of its upper one. So the forest is unique, and Kruskal's rule builds it: go through the paths from the
highest to the lowest, and join the two sides unless both have a summit of at least `depth` above the path.

What a block can decide alone, and what not, follows from the same rule. A *region* is open if it has a pixel with a
neighbor in another block, so its summit may be higher than the block knows. A closed region without a summit of its own
is joined to the side that its highest path leads to, whatever that is; two sides with summits stay apart for good. All
other paths, and those across the borders of blocks, are left to the scene (`solve`), which knows all regions.

The depth is that of the *component* of a pixel, the part of the mask that is connected to it: the more buildings a
component surely has, the less the surface falls between two of them (`Depth`). So buildings are counted first
(`tally_buildings`, `count_buildings`), by the same rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window

Ints = NDArray[np.int64]

_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Depth:
    """How much a surface falls between two buildings, in its steps.

    Attributes:
        alone: The depth in a component that is one building.
        least: The smallest depth, however many buildings a component has; at least 1.
    """

    alone: int
    least: int

    @property
    def varies(self) -> bool:
        """True where the depth depends on the number of buildings."""
        return self.least < self.alone

    def among(self, count: Ints) -> Ints:
        """Return the depth in components with so many buildings that are `alone` deep, `(component,)`.

        Where many roofs touch, less evidence of a wall is needed than where it would divide a single house. The depth
        falls with the power 3/8 of the number, from square roots, which all machines round alike.
        """
        power = np.sqrt(np.sqrt(count * np.sqrt(count)))
        return np.maximum(self.least, np.rint(self.alone / power)).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """Paths between neighboring regions, in no order; all arrays are `(path,)`.

    Attributes:
        a: A region.
        b: Another region.
        low: Order of the lower pixel of the path, see `pixel_order`.
        high: Order of its upper pixel.
    """

    a: Ints
    b: Ints
    low: Ints
    high: Ints

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self.a)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put paths one after another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def take(self, index: Ints) -> Self:
        """Return the paths of an index."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    def between(self, region: Ints) -> Self:
        """Return the same paths between other regions, given by those of these paths."""
        return type(self)(region[self.a], region[self.b], self.low, self.high)

    def best(self) -> Self:
        """Return the first path between each pair of regions, in Kruskal's order."""
        a, b = np.minimum(self.a, self.b), np.maximum(self.a, self.b)
        order = np.lexsort((-self.high, -self.low))
        pair = (a * (int(b.max(initial=0)) + 1) + b)[order]
        return self.take(order[np.sort(np.unique(pair, return_index=True)[1])])


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """What the scene must know to decide which open regions are one building. Regions are named by their summits.

    Attributes:
        summit: Order of the highest pixel of each open region, `(region,)`.
        bottom: First row of pixels below the block of each open region, `(region,)`.
        depth: How much the surface falls between two buildings of its component, in steps; 0 leaves those that touch
            together, `(region,)`.
        undecided: Paths between regions of one block.
        own: Order of each pixel beside one of another block, once for each such neighbor, `(pair,)`.
        other: Order of that neighbor, `(pair,)`.
        region: Region of the first, `(pair,)`.
        one: Regions of one block that adjoin each other: the one, `(neighbor,)`.
        next: The other, `(neighbor,)`.
    """

    summit: Ints
    bottom: Ints
    depth: Ints
    undecided: Paths
    own: Ints
    other: Ints
    region: Ints
    one: Ints
    next: Ints

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put the links of several blocks together."""
        parts = parts or [cls.empty()]
        paths = Paths.concatenate([part.undecided for part in parts])
        names = ("summit", "bottom", "depth", "own", "other", "region", "one", "next")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(undecided=paths, **columns)

    @classmethod
    def empty(cls) -> Self:
        """Return the links of a block without open regions."""
        paths = Paths(_NONE, _NONE, _NONE, _NONE)
        return cls(_NONE, _NONE, _NONE, paths, _NONE, _NONE, _NONE, _NONE, _NONE)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The regions of a block.

    Attributes:
        region: Region of each of the block's pixels, -1 outside the mask, `(y, x)` int32; numbered from zero.
        summit: Order of the highest pixel of each region, `(region,)`.
        is_open: True where a region may be joined with others, `(region,)`.
        touches: True where it is known that a region adjoins another building, `(region,)`.
        links: What the scene decides.
    """

    region: NDArray[np.int32]
    summit: Ints
    is_open: NDArray[np.bool_]
    touches: NDArray[np.bool_]
    links: Links


@dataclass(frozen=True, slots=True, eq=False)
class Buildings:
    """Which open regions are one building.

    Attributes:
        region: Summits of the open regions, sorted, `(region,)`.
        summit: Summit of the building of each, `(region,)`.
        bottom: First row of pixels below the lowest block that the building reaches, `(region,)`.
        touches: True where the region adjoins one of another building, `(region,)`; closed ones are not looked at.
    """

    region: Ints
    summit: Ints
    bottom: Ints
    touches: NDArray[np.bool_]

    def find(self, region: Ints) -> tuple[Ints, Ints]:
        """Return the summit of each region's building, and the first row of pixels below its blocks."""
        index = np.searchsorted(self.region, region)
        return self.summit[index], self.bottom[index]

    def find_touching(self, region: Ints) -> NDArray[np.bool_]:
        """Return True where a region adjoins an open one of another building."""
        touches: NDArray[np.bool_] = self.touches[np.searchsorted(self.region, region)]
        return touches


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How many buildings components have that do not end within a block.

    Attributes:
        name: Order of the highest pixel of the component's part in a block, sorted, `(component,)`.
        number: Buildings of the whole component, at least 1, `(component,)`.
    """

    name: Ints
    number: Ints

    @classmethod
    def empty(cls) -> Self:
        """Return the counts of no component."""
        return cls(_NONE, _NONE)

    def of(self, name: Ints) -> Self:
        """Return the counts of some components.

        Raises:
            ValueError: If one of them was not counted.
        """
        index = np.searchsorted(self.name, name)
        if len(name) and (not len(self.name) or (self.name[np.minimum(index, len(self.name) - 1)] != name).any()):
            raise ValueError("a component goes on in another block; count the buildings of all blocks first")
        return type(self)(name, self.number[index])


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What the scene must know of a block to count the buildings of components that go on in other blocks.

    Attributes:
        links: What decides which open regions are one building that is `Depth.alone` deep.
        component: Name of the component of each of these regions, as in `Counts`, `(region,)`.
        name: The components of the block that go on in others, sorted, `(component,)`.
        closed: Buildings of each that are whole, `(component,)`.
    """

    links: Links
    component: Ints
    name: Ints
    closed: Ints

    @classmethod
    def empty(cls) -> Self:
        """Return the tally of a block without buildings."""
        return cls(Links.empty(), _NONE, _NONE, _NONE)


PLACE_BITS = 44
"""Bits of a pixel's place in its order; scenes have fewer than 2^44 pixels, surfaces values below 2^19."""


def pixel_order(surface: NDArray[np.integer], place: Ints) -> Ints:
    """Return numbers that are the larger, the earlier a pixel comes in the order of the scene.

    Args:
        surface: Values of pixels, whole numbers of at least 0, `(pixel,)`.
        place: Their places, `row * width + col`, in the scene, `(pixel,)`.
    """
    return (surface.astype(np.int64) << PLACE_BITS) + ((1 << PLACE_BITS) - 1 - place)


def place_of(order: Ints) -> Ints:
    """Return the places of pixels from their order, the inverse of `pixel_order`."""
    return (1 << PLACE_BITS) - 1 - (order & ((1 << PLACE_BITS) - 1))


def find_regions(
    surface: NDArray[np.integer],
    mask: NDArray[np.bool_],
    window: Window,
    *,
    scene_shape: tuple[int, int],
    depth: Depth | None,
    counts: Counts | None = None,
) -> Regions:
    """Divide the mask of a block into regions, each of which belongs to one building of the scene.

    Args:
        surface: Whole numbers of at least 0, `(y, x)`, of the window and one pixel around it.
        mask: True = building, `(y, x)` like `surface`; False beyond the scene.
        window: The block's own pixels, in pixels of the scene.
        scene_shape: Height and width of the scene, pixels.
        depth: How much the surface falls between two buildings; None leaves those that touch together.
        counts: Buildings of the components that go on in other blocks; needed if the depth varies.

    Raises:
        ValueError: If such a component was not counted.
    """
    basins = _find_basins(surface, mask, window, scene_shape)
    found, _ = _divide(basins, _find_depths(basins, depth, counts or Counts.empty()), window)
    return found


def tally_buildings(
    surface: NDArray[np.integer],
    mask: NDArray[np.bool_],
    window: Window,
    *,
    scene_shape: tuple[int, int],
    depth: Depth,
) -> Tally:
    """Count the buildings of a block; see `find_regions`."""
    basins = _find_basins(surface, mask, window, scene_shape)
    found, number = _divide(basins, np.full(len(basins.summit), depth.alone), window)
    component, names, goes_on = basins.components()
    of_region = np.empty(len(found.summit), np.int64)
    of_region[number] = component
    closed = np.bincount(of_region[~found.is_open], minlength=len(names))
    order = np.argsort(names[goes_on])
    return Tally(found.links, names[of_region[found.is_open]], names[goes_on][order], closed[goes_on][order])


def count_buildings(tallies: Sequence[Tally]) -> Counts:
    """Count the buildings of all components that do not end within a block.

    Args:
        tallies: Those of all blocks of the scene, in any order.

    Raises:
        ValueError: As `solve`.
    """
    links = Links.concatenate([tally.links for tally in tallies])
    buildings = solve(links)
    name, first = np.unique(np.concatenate([_NONE, *(tally.name for tally in tallies)]), return_index=True)
    closed = np.concatenate([_NONE, *(tally.closed for tally in tallies)])[first]
    component = np.concatenate([_NONE, *(tally.component for tally in tallies)])
    of_region = np.searchsorted(name, component[np.argsort(links.summit)])  # in the order of `buildings`
    across = _pair(links, buildings.region)
    whole = _connect(len(name), of_region[across.a], of_region[across.b])
    number = np.bincount(whole, closed)
    _, one = np.unique(buildings.summit, return_index=True)
    np.add.at(number, whole[of_region[one]], 1)
    return Counts(name, number[whole].astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class _Basins:
    """The pixels of a block that lead to the same summit, and the paths between these basins.

    Attributes:
        basin: Basin of each of the block's pixels, -1 outside the mask, `(y, x)` int32; numbered from zero.
        summit: Order of the summit of each, `(basin,)`.
        is_open: True for those that lie beside the mask of another block, `(basin,)`.
        paths: The first path between each pair of basins, in Kruskal's order.
        own: Order of each pixel beside one of another block, once for each such neighbor, `(pair,)`.
        other: Order of that neighbor, `(pair,)`.
        of_own: Basin of the first, `(pair,)`.
    """

    basin: NDArray[np.int32]
    summit: Ints
    is_open: NDArray[np.bool_]
    paths: Paths
    own: Ints
    other: Ints
    of_own: Ints

    def components(self) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Return the component of each basin, and the name of each component and whether it goes on in other blocks."""
        component = _connect(len(self.summit), self.paths.a, self.paths.b)
        count = int(component.max(initial=-1)) + 1
        name, goes_on = np.zeros(count, np.int64), np.zeros(count, bool)
        np.maximum.at(name, component, self.summit)
        goes_on[component[self.is_open]] = True
        return component, name, goes_on


def _find_basins(
    surface: NDArray[np.integer], mask: NDArray[np.bool_], window: Window, scene_shape: tuple[int, int]
) -> _Basins:
    """Divide the mask of a block into basins; see `find_regions`."""
    height = np.where(mask, surface.astype(np.int32), -1)

    def order(row: Ints, col: Ints) -> Ints:
        """Return the order of pixels, given by their places in `height`."""
        return pixel_order(height[row, col], (row + (window.row - 1)) * scene_shape[1] + (col + (window.col - 1)))

    basin, top = _climb(height)
    summit = order(top[0] + 1, top[1] + 1)
    paths = Paths.concatenate([_steps(basin, order, axis) for axis in (0, 1)]).best()
    row, col, other_row, other_col = _across(height)
    of_own = basin[row - 1, col - 1].astype(np.int64)
    is_open = np.zeros(len(summit), bool)
    is_open[of_own] = True
    return _Basins(basin, summit, is_open, paths, order(row, col), order(other_row, other_col), of_own)


def _find_depths(basins: _Basins, depth: Depth | None, counts: Counts) -> Ints:
    """Return how much the surface falls between two buildings in the component of each basin, as `join` takes it."""
    size = len(basins.summit)
    if depth is None or not depth.varies:
        return np.full(size, depth.alone if depth is not None else 0)
    region, _ = join(basins.summit, basins.is_open, basins.paths, np.full(size, depth.alone))
    component, name, goes_on = basins.components()
    number = np.bincount(component[region == np.arange(size)], minlength=len(name))
    number[goes_on] = counts.of(name[goes_on]).number
    return depth.among(number)[component]


def _divide(basins: _Basins, depth: Ints, window: Window) -> tuple[Regions, Ints]:
    """Join the basins of a block as far as it can be decided; return the regions, and the number of each basin's."""
    paths, summit = basins.paths, basins.summit
    region, undecided = join(summit, basins.is_open, paths, depth)
    roots, number = np.unique(region, return_inverse=True)
    left, tops = paths.take(undecided).between(number), summit[roots]
    opened = np.zeros(len(roots), bool)
    for open_region in (number[basins.of_own], left.a, left.b):
        opened[open_region] = True
    one, other = number[paths.a], number[paths.b]
    apart, waits = one != other, opened[one] & opened[other]
    touches = np.zeros(len(roots), bool)
    touches[one[apart & ~waits]] = touches[other[apart & ~waits]] = True
    waiting = np.unique(tops[np.stack((one, other))[:, apart & waits]], axis=1)
    out = np.append(number, -1).astype(np.int32)[basins.basin]  # the last is that of no basin
    links = Links(
        summit=tops[opened],
        bottom=np.full(int(opened.sum()), window.rows.stop, np.int64),
        depth=depth[roots[opened]],
        undecided=left.between(tops),
        own=basins.own,
        other=basins.other,
        region=tops[number[basins.of_own]],
        one=waiting[0],
        next=waiting[1],
    )
    return Regions(out, tops, opened, touches, links), number


def solve(links: Links) -> Buildings:
    """Find out which open regions of a scene are one building.

    Args:
        links: Those of all blocks of the scene, in any order.

    Raises:
        ValueError: If a block beside others is missing, or is there twice.
    """
    names, first = np.unique(links.summit, return_index=True)
    if len(names) < len(links.summit):
        raise ValueError("blocks overlap; give the links of disjoint blocks, each once")
    across, within = _pair(links, names), links.undecided
    within = Paths(np.searchsorted(names, within.a), np.searchsorted(names, within.b), within.low, within.high)
    paths = Paths.concatenate([within, across]).best()
    root, _ = join(names, np.zeros(len(names), bool), paths, links.depth[first])
    bottom = np.zeros(len(names), np.int64)
    np.maximum.at(bottom, root, links.bottom[first])
    one = np.concatenate((across.a, np.searchsorted(names, links.one)))
    other = np.concatenate((across.b, np.searchsorted(names, links.next)))
    apart = root[one] != root[other]
    touches = np.zeros(len(names), bool)
    touches[one[apart]] = touches[other[apart]] = True
    return Buildings(names, names[root], bottom[root], touches)


def _pair(links: Links, names: Ints) -> Paths:
    """Return the paths across the borders of blocks, between open regions that are given by their places in `names`.

    Raises:
        ValueError: As `solve`.
    """
    low, high = np.minimum(links.own, links.other), np.maximum(links.own, links.other)
    order = np.lexsort((links.own, low, high))
    low, high, region = low[order], high[order], np.searchsorted(names, links.region[order])
    is_paired = len(low) % 2 == 0 and np.array_equal(low[::2], low[1::2]) and np.array_equal(high[::2], high[1::2])
    if not is_paired:
        raise ValueError("pixels at the borders of blocks have no counterpart; give the links of all blocks, each once")
    return Paths(region[::2], region[1::2], low[::2], high[::2])


def _connect(count: int, a: Ints, b: Ints) -> Ints:
    """Return the component of each of `count` nodes, numbered from zero, where `a` and `b` are connected, `(edge,)`."""
    root = np.arange(count)
    while True:
        low, above = np.minimum(root[a], root[b]), root.copy()
        np.minimum.at(above, root[a], low)
        np.minimum.at(above, root[b], low)
        while not np.array_equal(further := above[above], above):
            above = further
        if np.array_equal(above, root):
            return np.unique(root, return_inverse=True)[1]
        root = above


UP, LEFT, STAY, RIGHT, DOWN = range(5)
"""Steps of a climb, in the order of the pixels that they lead to."""


def _climb(height: NDArray[np.integer]) -> tuple[NDArray[np.int32], tuple[Ints, Ints]]:
    """Follow every pixel to its first neighbor, and on, up to a summit, as far as the block goes.

    Of all paths of a pixel the one to its first neighbor comes first, so it is in the forest, if it stays in the block.

    Args:
        height: Surface of the block and one pixel around it, -1 outside the mask, `(y, x)`.

    Returns:
        The basin of each of the block's pixels, -1 outside the mask, and row and column of each basin's summit.
    """
    own = height[1:-1, 1:-1]
    first, step = height[:-2, 1:-1].copy(), np.full(own.shape, UP, np.int8)
    for number, other in ((LEFT, height[1:-1, :-2]), (STAY, own), (RIGHT, height[1:-1, 2:]), (DOWN, height[2:, 1:-1])):
        np.copyto(step, number, where=other > first)  # of equals the earlier comes first
        np.maximum(first, other, out=first)
    for side, leaves in ((step[0], UP), (step[:, 0], LEFT), (step[:, -1], RIGHT), (step[-1], DOWN)):
        side[side == leaves] = STAY
    place = np.flatnonzero(own >= 0)
    number_of = np.empty(own.size, np.int32)
    number_of[place] = np.arange(len(place), dtype=np.int32)
    stride = own.shape[1]
    up = number_of[place + np.array([-stride, -1, 0, 1, stride])[step.ravel()[place]]]
    is_summit = up == np.arange(len(place), dtype=np.int32)
    while not np.array_equal(above := up[up], up):
        up = above
    basin = np.full(own.shape, -1, np.int32)
    basin.ravel()[place] = (np.cumsum(is_summit) - 1)[up]
    row, col = np.divmod(place[is_summit], stride)
    return basin, (row, col)


def _steps(basin: NDArray[np.int32], order: Callable[[Ints, Ints], Ints], axis: int) -> Paths:
    """Return the paths from one basin to another along an axis, one for each pair of pixels."""
    here, there = (basin[:-1], basin[1:]) if axis == 0 else (basin[:, :-1], basin[:, 1:])
    row, col = np.nonzero((here != there) & (here >= 0) & (there >= 0))
    one, other = order(row + 1, col + 1), order(row + 1 + (axis == 0), col + 1 + (axis == 1))
    a, b = here[row, col].astype(np.int64), there[row, col].astype(np.int64)
    return Paths(a, b, np.minimum(one, other), np.maximum(one, other))


def _across(height: NDArray[np.integer]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return where the mask crosses the border of the block: row and column within, row and column beyond."""
    last_row, last_col = height.shape[0] - 2, height.shape[1] - 2
    sides = []
    for here, beyond in ((1, 0), (last_row, last_row + 1)):
        col = np.flatnonzero((height[here, 1:-1] >= 0) & (height[beyond, 1:-1] >= 0)) + 1
        sides.append((np.full_like(col, here), col, np.full_like(col, beyond), col))
    for here, beyond in ((1, 0), (last_col, last_col + 1)):
        row = np.flatnonzero((height[1:-1, here] >= 0) & (height[1:-1, beyond] >= 0)) + 1
        sides.append((row, np.full_like(row, here), row, np.full_like(row, beyond)))
    own_row, own_col, beyond_row, beyond_col = (np.concatenate(part) for part in zip(*sides, strict=True))
    return own_row, own_col, beyond_row, beyond_col


def join(summit: Ints, is_open: NDArray[np.bool_], paths: Paths, depth: Ints) -> tuple[Ints, Ints]:
    """Join regions by Kruskal's rule, as far as it can be decided.

    Args:
        summit: Order of the summit of each region, `(region,)`.
        is_open: True where a region may continue beyond those given, `(region,)`.
        paths: Paths between regions, sorted by `Paths.best`.
        depth: How much the surface falls between two buildings of its component, at least 1; 0 leaves those that touch
            together, `(region,)`.

    Returns:
        For each region the one of the same building that has its summit, `(region,)`; and the indices of the paths that
        cannot be decided.
    """
    height = summit >> PLACE_BITS  # of the highest summit that is known to be reached, of those linked
    deep = depth[paths.a]
    level = np.where(deep > 0, (paths.low >> PLACE_BITS) + deep, np.iinfo(np.int64).max)
    matters = np.flatnonzero(np.minimum(height[paths.a], height[paths.b]) < level)  # the others join nothing
    top, height, opened = summit.tolist(), height.tolist(), is_open.tolist()
    parent, linked = list(range(len(top))), list(range(len(top)))
    undecided: list[int] = []
    steps = (values[matters].tolist() for values in (paths.a, paths.b, level, deep == 0))
    for path, a, b, least, always in zip(matters.tolist(), *steps, strict=True):
        a, b = _root(parent, a), _root(parent, b)
        link_a, link_b = _root(linked, a), _root(linked, b)
        if link_a == link_b:
            continue
        is_low, other_is_low = height[link_a] < least, height[link_b] < least
        if not (is_low or other_is_low):
            continue
        if always or (is_low and not opened[a]) or (other_is_low and not opened[b]):
            if top[a] < top[b]:
                a, b = b, a
            parent[b] = a
            opened[a] = opened[a] or opened[b]
        else:
            undecided.append(path)
        linked[link_b] = link_a
        height[link_a] = max(height[link_a], height[link_b])
    root = np.array([_root(parent, region) for region in range(len(top))], np.int64)
    return root, np.array(undecided, np.int64)


def _root(parent: list[int], node: int) -> int:
    """Return the root of a node, and shorten the way to it."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
