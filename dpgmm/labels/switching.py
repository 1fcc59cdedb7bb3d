"""How often labels switch: within a chain, between chains, along an optimiser's path and across restarts, on one scale."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..draws import affinity, best_chain, log_joint_of
from ..draws.affinity import Heaviest
from ..draws.thinning import evenly
from ..errors import InputError

PROMINENT = 0.01
"""Weight from which on a component's label counts: lesser ones come and go, and would drown what happens to the others."""
LOOKS = 200
"""States of a chain, evenly spaced, at which it is compared with the other chains and with the reference."""


LARGE = 0.05
"""Weight from which on a component is large: one whose label a chain must change if labels are to be mixed."""


class Visits(NamedTuple):
    """Labels that the large components of the likeliest state have had, at `LOOKS` states of every chain.

    `changes` (chain,): looks at which one of them has another label than at the look before; `labellings` (chain,):
    different labellings of them all.
    """

    changes: np.ndarray
    labellings: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Switching:
    """Label switching among prominent components, of draws (`what` "draws") or of an optimiser's path ("path").

    - `per_chain` (chain,): switches per 1,000 steps. A switch is a step after which the best assignment of components to
      those of the step before gives some component another label. Steps of a path are the optimiser's.
    - `different_pairs`: share of pairs of chains, over states, in which the same components have other labels; NaN
      for one chain.
    - `labellings`, `entropy` (bits): distinct labellings of the reference's components, and the entropy of their
      distribution over states of all chains; the reference is the state of highest log joint (a path's: the last of the
      best restart).
    - `min_weight`: weight below which a component does not count: the more components count, the more switches.
    - `steps_between`: draws or steps between the states that were looked at; between two, switches go unseen.

    Examples:
        >>> [found] = dpgmm.switching(tree)
        >>> found.what, found.per_chain.shape, found.min_weight
        ('draws', (4,), 0.01)
    """

    what: str
    per_chain: np.ndarray
    different_pairs: float
    labellings: int
    entropy: float
    steps_between: float
    min_weight: float

    @property
    def per_1000(self) -> float:
        """Switches per 1,000 steps, mean over chains."""
        return float(self.per_chain.mean())

    def row(self) -> dict[str, float | int | str]:
        """One row of a table."""
        return {
            "of": self.what,
            "least weight": self.min_weight,
            "switches per 1,000 steps": self.per_1000,
            "pairs labelled differently": self.different_pairs,
            "distinct labellings": self.labellings,
            "entropy (bits)": self.entropy,
        }


def switching(draws: xr.DataTree, min_weight: float = PROMINENT) -> list[Switching]:
    """Label switching of the draws and, where there is one, of the optimiser's path; components of `min_weight` or more.

    Components of two states are told apart by `dpgmm.draws.affinity`: no data, no units and no order of the labels enter.
    Raises `InputError` where there is no component of that weight.

    Examples:
        >>> [found] = dpgmm.switching(tree)
        >>> 0 <= found.per_1000 <= 1000
        True
    """
    posterior = draws["posterior"].to_dataset()
    log_joint = log_joint_of(draws)
    found = [_of("draws", posterior, np.unravel_index(log_joint.argmax(), log_joint.shape), 1.0, min_weight)]
    if "optimisation" in draws.children:
        path = draws["optimisation"].to_dataset()
        best = best_chain(draws), path.sizes["snapshot"] - 1
        spacing = float(np.diff(path["snapshot_step"].values).mean()) if path.sizes["snapshot"] > 1 else 1.0
        found.append(_of("path", path, best, spacing, min_weight))
    return found


def visits(draws: xr.DataTree) -> Visits:
    """The `Visits` of the components of weight `LARGE` or more, told apart as in `switching`."""
    posterior = draws["posterior"].to_dataset()
    log_joint, weights = log_joint_of(draws), posterior["weights"].values
    reference = np.unravel_index(log_joint.argmax(), log_joint.shape)
    states = affinity.heaviest(posterior, min(LARGE, weights[reference].max()))
    looks = states.at((slice(None), evenly(weights.shape[1], LOOKS)))
    names = _names(looks, states.at(reference), weights.shape[-1]).reshape(*looks.weights.shape[:2], -1)
    before, after = names[:, :-1], names[:, 1:]
    changes = ((before != after) & (before >= 0) & (after >= 0)).any(axis=2).sum(axis=1)
    return Visits(changes, np.array([len(np.unique(chain, axis=0)) for chain in names]))


def table(draws: xr.DataTree, min_weight: float = PROMINENT) -> pd.DataFrame:
    """`switching` as a table, one row for the draws and one for the path."""
    return pd.DataFrame([found.row() for found in switching(draws, min_weight)])


def _of(what: str, group: xr.Dataset, reference, steps_between: float, min_weight: float) -> Switching:
    """`reference` is the position (chain, state) of the state that labellings are named by."""
    if not (group["weights"].values >= min_weight).any():
        raise InputError(f"no component of the {what} has a weight of {min_weight} or more: lower min_weight")
    states, num_components = affinity.heaviest(group, min_weight), group.sizes["component"]
    num_chains, length = states.weights.shape[:2]
    looks = evenly(length, LOOKS)
    some = states.at((slice(None), looks))
    return Switching(
        what,
        np.array([_switches(states.at(c), num_components) for c in range(num_chains)]) * 1000 / steps_between,
        _pairs(some, num_components),
        *_labellings(some, states.at(reference), num_components),
        steps_between,
        min_weight,
    )


def _switches(chain: Heaviest, num_components: int) -> float:
    """Switches per step of one chain of states."""
    if len(chain.weights) < 2:
        return float("nan")
    return float(_renamed(affinity.match(chain.at(slice(-1)), chain.at(slice(1, None)), num_components).labels).mean())


def _renamed(labels: np.ndarray) -> np.ndarray:
    """Whether any matched component has another label than its own, ``(T, K)`` to ``(T,)``."""
    return ((labels >= 0) & (labels != np.arange(labels.shape[1]))).any(axis=1)


def _pairs(states: Heaviest, num_components: int) -> float:
    chains = range(len(states.weights))
    renamed = [
        _renamed(affinity.match(states.at(a), states.at(b), num_components).labels).mean()
        for a in chains
        for b in chains
        if a < b
    ]
    return float(np.mean(renamed)) if renamed else float("nan")


def _labellings(states: Heaviest, reference: Heaviest, num_components: int) -> tuple[int, float]:
    """Number of distinct labellings of the reference's components over the states, and their entropy in bits."""
    names = _names(states, reference, num_components)
    counts = np.unique(names, axis=0, return_counts=True)[1]
    shares = counts / counts.sum()
    return len(counts), float(max(0.0, -(shares * np.log2(shares)).sum()))


def _names(states: Heaviest, reference: Heaviest, num_components: int) -> np.ndarray:
    """Labels of the reference's components in all states, one row a state; -1 where there is no such component."""
    flat = states.flatten()
    return affinity.match(reference.repeat(len(flat.labels)), flat, num_components).labels[
        :, reference.labels[reference.weights > 0]
    ]
