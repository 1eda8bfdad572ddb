"""Clusters: samples whose errors depend on one another, for standard errors, degrees of freedom and tests.

The currents' own errors last for days and reach as far as the eddies that they blur or displace, so what samples say
of a constant is not independent where they share those errors. The setting `cluster_by` says which samples do:

    drifter        those of one drifter
    release        those of drifters released together, too: within `TOGETHER_WITHIN` and `TOGETHER_FOR` of one another
    box-and-week   those that start in one box of `BOX` degrees in one week, whichever their drifter

A release is a drifter's first segment in the store, whatever its split. Releases link up: if A was released with B and
B with C, the three are one cluster, however far A is from C. Of box and week a drifter's own samples in other weeks are
taken to be independent of one another.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from driftcal.shared.geo import EARTH_RADIUS, separation, wrap_longitude
from driftcal.shared.store.reader import ShardStore
from driftcal.train.settings import ClusterBy

TOGETHER_WITHIN = 25e3
"""Distance of drifters released together [m]. Altimetric currents resolve wavelengths from about 130 km (Mediterranean:
Ballarotta et al. 2019, doi:10.5194/os-15-1091-2019), whose flow keeps its sign over a quarter of that, 30 km: drifters
that are nearer to one another feel the same error."""

TOGETHER_FOR = 86_400
"""Time between the releases of drifters released together [s]: the step of daily currents, whose errors last longer."""

BOX = 5.0
"""Size of a box [degrees], from the equator and Greenwich as those of `--group-by grid:5`: several eddies."""

WEEK = 7 * 86_400
"""Length of a week [s], counted from 1970-01-01."""


def of(store: ShardStore, by: ClusterBy) -> Int[np.ndarray, " n"]:
    """Cluster of every sample of the store, in all splits, numbered in the order of drifters or of boxes and weeks."""
    drifter, origin, time = (store.labels[name] for name in ("drifter", "origin", "start_time"))
    if by == "drifter":
        return drifter
    if by == "box-and-week":
        low = np.floor(np.column_stack([wrap_longitude(origin[:, 0]), origin[:, 1]]) / BOX)
        _, cluster = np.unique(np.column_stack([low, time // WEEK]), axis=0, return_inverse=True)
        return cluster.reshape(-1)
    lost = [k for k in store.unreadable if store.labels["split"][k] < 0]  # nothing is known of their labels
    known = np.setdiff1d(np.arange(len(drifter)), lost)
    in_time = known[np.lexsort((time[known], drifter[known]))]
    held, at = np.unique(drifter[in_time], return_index=True)
    first = in_time[at]
    cluster = np.arange(len(store.drifters))
    cluster[held] = held[released_with(origin[first], time[first])]
    return cluster[drifter]


def released_with(origin: Float[np.ndarray, "n 2"], time: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The first of the drifters that each was released together with, directly or through others; itself if alone.

    Args:
        origin: lon, lat of every drifter's release [degrees], on any turn.
        time: of it [s].
    """
    n = len(time)
    lon, lat = np.radians(origin).T
    place = EARTH_RADIUS * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    # all that are near in both, and some that are nearer in one than in the other: the chord is the shorter way
    tree = KDTree(np.column_stack([place / TOGETHER_WITHIN, time / TOGETHER_FOR]))
    a, b = tree.query_pairs(np.sqrt(2.0) * (1.0 + 1e-9), output_type="ndarray").T
    together = (separation(origin[a], origin[b]) <= TOGETHER_WITHIN) & (np.abs(time[a] - time[b]) <= TOGETHER_FOR)
    links = coo_array((np.ones(int(together.sum()), bool), (a[together], b[together])), (n, n))
    _, component = connected_components(links, directed=False)
    _, first, which = np.unique(component, return_index=True, return_inverse=True)
    return first[which]
