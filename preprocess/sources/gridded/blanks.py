"""Blanks: exact zeros over the sea that stand for missing currents.

A chunk that was never written, a failed download or a model before its first step read as exactly 0. Still water does
not: at 1e-4 m/s hardly one cell in 10,000 of a moving sea has a component of exactly 0. On one level there is no
current

* anywhere, if a component is 0 on all of the sea;
* in a connected patch of cells with both components 0, or in one with a component 0 that is nowhere narrower than
  `WIDTH` cells;

where the patch is too large to be chance and its edge is a jump. By chance, zeros lie as often beside each other as
the level's other zeros say: of N cells with a share p of zeros there are at most N (4.06 p)^n connected patches of n
cells (4.06 is the growth constant of polyominoes), and `CHANCE` of them are allowed. A sea that is slow, or stored
coarsely, has larger patches, but the cells around those are 0 or one step of its numbers away: a jump is the median
of at least `JUMP` steps along the edge. Nor is an edge a jump where the flow sets in gently, with differences that grow
outwards, as beside an eddy in water at rest. Land that is given as zeros is such a patch too, of every level.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, Num

from driftcal.preprocess.sources.gridded.packing import LIMIT, Packing
from driftcal.preprocess.sources.gridded.remarks import Blank
from driftcal.shared.store.schema import FILL, OVER

CHANCE = 1e-6
"""Patches of a level that may be expected to be chance."""

GROWTH = 4.06
"""Patches of n + 1 cells by patches of n cells, of many cells (Jensen 2003, doi:10.1007/3-540-44863-2_21)."""

JUMP = 3.0
"""Least median difference between a patch and the cells around it [steps of the level's numbers]."""

GENTLE = 1 / 3
"""Differences across an edge by those to the next cell outwards, below which the flow sets in gently: at most that
where it does so with a slope of 0, and 0.7 or more where nothing ties the cells to the zeros, even in white noise."""

FEWEST = 16
"""Places along an edge below which nothing is concluded from how the flow sets in."""

LEAST = 4
"""Cells of a patch where both components are 0."""

WIDTH = 2
"""Least width of a patch where one component is 0 [cells]: in flows that are mirror images of themselves it is 0 along
whole rows."""

LEAST_SEA = 16
"""Cells of sea below which a component that is 0 on all of them may be chance."""

_QUICK = 2**18
"""Cells examined at once."""

_SAMPLE = 8192
"""Numbers examined to find their step."""


def remove_blanks(
    level: Int16[np.ndarray, "2 rows columns"],
    stored: Sequence[Num[np.ndarray, "rows columns"]],
    packings: Sequence[Packing],
    always_zero: int | None = None,
) -> Blank:
    """Puts `FILL` where exact zeros of a packed level mean that there is no current.

    Args:
        level: Packed, int16 `(2, rows, columns)`; changed in place.
        stored: Both components as stored, `(rows, columns)`.
        packings: Packing of each.
        always_zero: The component that is meant to be 0 everywhere, if any.

    Returns:
        The cells where a current was taken away.
    """
    moving = (0, 1) if always_zero is None else (1 - always_zero,)
    if not _suspicious(level, packings, moving):
        return Blank()
    zeros = [_near_zero(part, packing) for part, packing in zip(level, packings, strict=True)]
    both = zeros[0] & zeros[1]
    joint = always_zero is None and _adjoin(both)
    if not joint and not any(_wide_somewhere(zeros[k]) for k in moving):
        return Blank()
    # packed numbers are rounded: of those that look like it, what is stored as exactly 0
    zeros = [near & packing.zero(values) for near, packing, values in zip(zeros, packings, stored, strict=True)]
    sea = level[0] != FILL
    n_sea = int(np.count_nonzero(sea))
    counts = [int(np.count_nonzero(part)) for part in zeros]
    if min(counts) == n_sea or (n_sea >= LEAST_SEA and any(counts[k] == n_sea for k in moving)):
        level[:] = FILL
        return Blank(n_sea, n_sea - int(np.count_nonzero(zeros[0] & zeros[1])))
    gone = np.zeros(sea.shape, bool)
    if joint:
        both = zeros[0] & zeros[1]
        others = max(1, n_sea - int(np.count_nonzero(both)))
        share = math.prod(max(1, np.count_nonzero(part & ~both)) / others for part in zeros)
        gone |= _patches(both, level, sea, (0, 1), _least(n_sea, share, LEAST))
    for k in moving:
        left = zeros[k] & ~gone
        if _wide_somewhere(left) and (wide := _widened(_narrowed(left))).any():
            others = max(1, n_sea - int(np.count_nonzero(wide | gone)))
            share = max(1, np.count_nonzero(left & ~wide)) / others
            gone |= _patches(wide, level, sea & ~gone, (k,), _least(n_sea, share, WIDTH**2))
    np.copyto(level, FILL, where=gone)
    return Blank(int(np.count_nonzero(gone)), int(np.count_nonzero(gone & ~(zeros[0] & zeros[1]))))


def _suspicious(level: Int16[np.ndarray, "2 rows columns"], packings: Sequence[Packing], moving: Sequence[int]) -> bool:
    """Tells quickly whether there may be a patch, which is hardly ever so on a level of a moving sea in small steps.

    There are `LEAST` cells where both components are 0, or four of one component that touch.
    """
    _, n_rows, n_columns = level.shape
    count, rows = 0, max(1, _QUICK // max(1, n_columns))
    for start in range(0, n_rows, rows):  # few at a time: their temporaries stay in the cache
        slab = level[:, start : start + rows + 1]  # with a row of the next
        zeros = [_near_zero(part, packing) for part, packing in zip(slab, packings, strict=True)]
        if any(_wide_somewhere(zeros[k]) for k in moving):
            return True
        if len(moving) > 1:
            count += np.count_nonzero(zeros[0] & zeros[1])
            if count >= LEAST:
                return True
    return False


def _near_zero(part: Int16[np.ndarray, "rows columns"], packing: Packing) -> Bool[np.ndarray, "rows columns"]:
    """Cells of a packed component with the number that 0, decoded or stored, is packed as."""
    zeros = part == 0
    if packing.offset and abs(tick := packing.pack(0.0)) <= LIMIT:
        zeros |= part == tick
    return zeros


def _adjoin(zeros: Bool[np.ndarray, "rows columns"]) -> bool:
    """Tells whether there are enough cells for a patch, and two of them side by side."""
    if np.count_nonzero(zeros) < LEAST:
        return False
    return bool((zeros[1:] & zeros[:-1]).any() or (zeros[:, 1:] & zeros[:, :-1]).any())


def _wide_somewhere(zeros: Bool[np.ndarray, "rows columns"]) -> bool:
    """Tells whether there are `WIDTH` x `WIDTH` cells of zeros, which is 2 x 2."""
    every_other = zeros[::2]  # one of two rows: a sea without patches is told by half of the work
    if not (every_other[:, 1:] & every_other[:, :-1]).any():
        return False
    beside = zeros[:, 1:] & zeros[:, :-1]
    return bool((beside[1:] & beside[:-1]).any())


def _narrowed(zeros: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows-1 columns-1"]:
    """Southern and western corners of blocks of `WIDTH` x `WIDTH` cells of zeros."""
    for axis in (0, 1):
        n = zeros.shape[axis] - WIDTH + 1
        if n < 1:
            return np.zeros((0, 0), bool)
        parts = [zeros[k : k + n] if axis == 0 else zeros[:, k : k + n] for k in range(WIDTH)]
        zeros = np.logical_and.reduce(parts)
    return zeros


def _widened(corners: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows+1 columns+1"]:
    """Cells of the blocks with these corners: the inverse of `_narrowed`, except for narrow parts."""
    if not corners.size:
        return corners
    rows, columns = (n + WIDTH - 1 for n in corners.shape)
    cells = np.zeros((rows, columns), bool)
    for i, j in np.ndindex(WIDTH, WIDTH):
        cells[i : i + corners.shape[0], j : j + corners.shape[1]] |= corners
    return cells


def _least(n: int, share: float, least: int) -> float:
    """Cells of a patch that is no chance, where of `n` cells a `share` is 0."""
    rate = GROWTH * share
    return max(least, math.log(n / CHANCE) / -math.log(rate)) if rate < 1 else math.inf


def _patches(
    zeros: Bool[np.ndarray, "rows columns"],
    level: Int16[np.ndarray, "2 rows columns"],
    sea: Bool[np.ndarray, "rows columns"],
    components: Sequence[int],
    least: float,
) -> Bool[np.ndarray, "rows columns"]:
    """Cells of the patches of `zeros` that are of `least` cells and end in a jump of the `components`."""
    if np.count_nonzero(zeros) < least:
        return np.zeros(zeros.shape, bool)
    from scipy import ndimage  # noqa: PLC0415 - a tenth of a second, for levels with patches only

    labels = np.empty(zeros.shape, np.int32)
    ndimage.label(zeros, output=labels)
    large = np.bincount(labels.ravel()) >= least
    large[0] = False
    if not large.any():
        return np.zeros(zeros.shape, bool)
    inside = large[labels]
    patch, jump, beyond = _edges(inside, labels, level, sea, components)
    order = np.argsort(patch, kind="stable")
    smooth = [
        int(patch[of_patch[0]])
        for of_patch in np.split(order, np.flatnonzero(np.diff(patch[order])) + 1)
        if of_patch.size and _is_smooth(jump[of_patch], beyond[of_patch])
    ]
    return inside & ~np.isin(labels, smooth) if smooth else inside


def _is_smooth(jump: Float[np.ndarray, " n"], beyond: Float[np.ndarray, " n"]) -> bool:
    """Tells whether the flow sets in gently at the edge of a patch, by the differences across it and those beyond."""
    if np.median(jump) < JUMP:
        return True
    valid = ~np.isnan(beyond)
    return bool(np.count_nonzero(valid) >= FEWEST and jump[valid].sum() < GENTLE * beyond[valid].sum())


def _edges(
    inside: Bool[np.ndarray, "rows columns"],
    labels: Int[np.ndarray, "rows columns"],
    level: Int16[np.ndarray, "2 rows columns"],
    sea: Bool[np.ndarray, "rows columns"],
    components: Sequence[int],
) -> tuple[Int[np.ndarray, " n"], Num[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Every pair of cells across an edge, the outer one with a current.

    Returns:
        Its patch, its difference, and that from the outer cell to the next one outwards, NaN where that has no current
        [steps]; each `(n,)`.
    """
    steps, columns = {k: _step(level[k]) for k in components}, labels.shape[1]
    flat = {k: level[k].reshape(-1) for k in components}
    open_sea = sea.reshape(-1) & ~inside.reshape(-1)

    def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.max([np.abs(f[a].astype(np.int32) - f[b]) / steps[k] for k, f in flat.items()], axis=0)

    patch, jump, beyond = [np.zeros(0, labels.dtype)], [np.zeros(0)], [np.zeros(0)]
    # the cell behind an edge, by its place in the level, and from there to the one ahead
    rows = np.flatnonzero(inside[1:] != inside[:-1])
    row, column = np.divmod(np.flatnonzero(inside[:, 1:] != inside[:, :-1]), max(1, columns - 1))
    for behind, away in ((rows, columns), (row * columns + column, 1)):
        ahead = behind + away
        inner, outer = np.where(inside.reshape(-1)[behind], (behind, ahead), (ahead, behind))
        inner, outer = inner[open_sea[outer]], outer[open_sea[outer]]
        further = 2 * outer - inner
        valid = (further >= 0) & (further < labels.size)
        if away == 1:
            valid &= further // columns == outer // columns
        valid[valid] = open_sea[further[valid]]
        patch.append(labels.reshape(-1)[inner])
        jump.append(differences(inner, outer))
        beyond.append(np.where(valid, differences(outer, np.where(valid, further, outer)), np.nan))
    return np.concatenate(patch), np.concatenate(jump), np.concatenate(beyond)


def _step(part: Int16[np.ndarray, "rows columns"]) -> float:
    """Step of a component's packed numbers: the least difference between those of a sample of its cells."""
    flat = part.reshape(-1)
    sample = np.sort(flat[:: max(1, flat.size // _SAMPLE)])
    differences = np.diff(sample[(sample != 0) & (sample != FILL) & (sample != OVER)].astype(np.int32))
    return float(differences[differences > 0].min(initial=LIMIT)) if differences.any() else 1.0
