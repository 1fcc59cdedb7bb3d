"""An atlas of modes: chains and restarts deduplicated modulo permutation of the labels."""

import dataclasses

import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse.csgraph import connected_components

from ..draws import affinity, log_joint_of
from ..draws.affinity import Heaviest
from ..draws.thinning import evenly

SAMPLE = 60
"""Draws of a chain among which its most central one is looked for."""
SAME = 0.03
"""Distance (one less the affinity) below which two mixtures are the same mode, whatever the spread of their chains."""
SPREAD = 0.9
"""Quantile of the distances of a chain's draws from its central one: chains that lie nearer than that are one mode."""


@dataclasses.dataclass(frozen=True, eq=False)
class Atlas:
    """Modes of the chains or restarts, best first.

    `mode` (chain,): number of each chain's mode; `labelling` (chain,): number of its labelling within that mode. Chains
    of one mode and two labellings are the same answer under other names. `table`: one row a mode: log joint of its best
    chain (nats), basin (share of chains), labellings, visible components; `distance` (chain, chain): in [0, 1].

    Examples:
        >>> found = dpgmm.atlas(tree)
        >>> found.mode.shape, found.distance.shape
        ((4,), (4, 4))
    """

    mode: np.ndarray
    labelling: np.ndarray
    table: pd.DataFrame
    distance: np.ndarray


def atlas(draws: xr.DataTree, same: float = SAME, min_weight: float = affinity.VISIBLE) -> Atlas:
    """Group chains whose central draws lie near each other, whatever their labels (single linkage).

    A chain's central draw is the one that is on average nearest to `SAMPLE` others of it: a medoid, which needs no
    labels. A restart of gradient MAP has one draw, its mode. The distance is that of `draws.affinity`. Near is `same`, or
    the spread of the wider of the two chains about its central draw, quantile `SPREAD`, if that is more.

    Examples:
        >>> list(dpgmm.atlas(tree).table.columns)
        ['mode', 'log joint', 'basin', 'labellings', 'visible components']
    """
    posterior = draws["posterior"].to_dataset()
    states, num_components = affinity.heaviest(posterior, min_weight), posterior.sizes["component"]
    chains = np.arange(len(states.weights))
    central, spread = map(np.array, zip(*(_medoid(states.at(c), num_components) for c in chains), strict=True))
    chosen = states.at((chains, central))
    a, b = (i.ravel() for i in np.meshgrid(chains, chains, indexing="ij"))
    matched = affinity.match(chosen.at(a), chosen.at(b), num_components)
    distance = np.clip(1 - matched.affinity, 0, 1).reshape(len(chains), -1)
    log_joint = log_joint_of(draws).max(axis=1)
    near = np.maximum(same, np.maximum(spread[:, None], spread))
    mode = _numbered(_connected(distance <= near), -log_joint)
    labels = matched.labels.reshape(len(chains), len(chains), num_components)
    alike = ((labels < 0) | (labels == np.arange(num_components))).all(axis=2)
    labelling = np.zeros(len(chains), int)
    for m in np.unique(mode):
        within = np.flatnonzero(mode == m)
        labelling[within] = _numbered(_connected(alike[np.ix_(within, within)]), within)
    visible = (chosen.weights > 0).sum(axis=1)
    rows = [
        {
            "mode": m,
            "log joint": log_joint[mode == m].max(),
            "basin": (mode == m).mean(),
            "labellings": labelling[mode == m].max() + 1,
            "visible components": visible[mode == m].mean(),
        }
        for m in np.unique(mode)
    ]
    return Atlas(mode, labelling, pd.DataFrame(rows), distance)


def _medoid(chain: Heaviest, num_components: int) -> tuple[int, float]:
    """Position of the draw with the highest mean affinity to others, and the spread of the others about it."""
    looks = evenly(len(chain.weights), SAMPLE)
    a, b = (i.ravel() for i in np.meshgrid(looks, looks, indexing="ij"))
    similar = affinity.match(chain.at(a), chain.at(b), num_components).affinity.reshape(len(looks), -1)
    best = similar.mean(axis=1).argmax()
    return int(looks[best]), float(np.quantile(1 - similar[best], SPREAD))


def _connected(linked: np.ndarray) -> np.ndarray:
    """Number of each node's connected component."""
    return connected_components(linked, directed=False)[1]


def _numbered(groups: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The same groups numbered by their least cost."""
    order = sorted(np.unique(groups), key=lambda g: cost[groups == g].min())
    return np.array([order.index(g) for g in groups])
