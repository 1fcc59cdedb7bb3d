"""All about the labels of one set of draws: how often they switch, what relabelling repairs, what needs no labels at all."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .. import draws
from ..data import Dataset
from ..data.compression import compress
from ..draws.affinity import VISIBLE
from ..draws.monte_carlo import r_hat
from ..draws.thinning import evenly
from ..partitions import Partition, partition
from ..relabelling import relabel
from ..relabelling.labelled import Relabelling
from .modes import Atlas, atlas
from .switching import Switching, switching

FEW = 400
"""Observations that relabelling looks at, where there are more and they cannot be compressed; and the partition's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Labelling:
    """`switching` of draws and path, `atlas` of modes; for a sampler with two draws or more also:

    `relabelling`, by `ecr_iterative_1`; `r_hat`: one row for each relabelled visible component, R-hat of its weight and
    mean raw (the label in its place) and relabelled; `partition`: the estimate of least expected variation of
    information, of at most `FEW` observations.
    """

    switching: list[Switching]
    atlas: Atlas
    relabelling: Relabelling | None
    r_hat: pd.DataFrame | None
    partition: Partition | None


def summarise(tree: xr.DataTree, method: str = "ecr_iterative_1") -> Labelling:
    """The `Labelling` of draws in our schema. Draws of an optimiser's restarts are neither relabelled nor partitioned."""
    switches, modes = switching(tree), atlas(tree)
    if draws.are_restarts(tree):
        return Labelling(switches, modes, None, None, None)
    points = few_points(tree)
    relabelled = relabel(tree, method, points=points.points, point_weights=points.weights)
    return Labelling(switches, modes, relabelled, r_hats(tree, relabelled), partition(tree, "vi", limit=FEW))


class Aligned(NamedTuple):
    """Draws in which a label means one component throughout, and `how` that is, in words."""

    draws: xr.DataTree
    how: str


def aligned(tree: xr.DataTree, relabelled: Relabelling | None = None) -> Aligned:
    """What a table of components can be made of: an optimiser's best restart as it is, a sampler's chains relabelled.

    Sorting components by weight would not do: those of nearly equal weight would be averaged with each other.
    `relabelled`: what `relabel` found, where it is at hand.
    """
    if draws.are_restarts(tree):
        return Aligned(draws.answer(tree), "of the best restart, under its own labels")
    if relabelled is None:
        points = few_points(tree)
        relabelled = relabel(tree, "ecr_iterative_1", points=points.points, point_weights=points.weights)
    return Aligned(relabelled.draws, f"of all chains, relabelled by {relabelled.method}")


def few_points(tree: xr.DataTree) -> Dataset:
    """Few weighted points that stand for the observed ones: a compression where D = 1, else evenly spaced rows."""
    data = draws.data_of(tree)
    if data.size <= FEW:
        return data
    if data.dim == 1:
        return compress(data)
    carries = np.flatnonzero(data.weights)
    rows = carries[evenly(len(carries), FEW)]
    return Dataset(data.points[rows], data.weights[rows] * data.total_weight / data.weights[rows].sum())


def r_hats(tree: xr.DataTree, relabelled: Relabelling) -> pd.DataFrame:
    """R-hat of the weights and means of visible components, raw and relabelled, heaviest first.

    Of a mean in D > 1: the largest of the R-hats of its coordinates.
    """
    before, after = tree["posterior"].to_dataset(), relabelled.draws["posterior"].to_dataset()
    weights = after["weights"].values.mean(axis=(0, 1))
    visible = np.argsort(-weights)[: (weights > VISIBLE).sum()]
    columns: dict[str, Any] = {"component": visible, "weight": weights[visible]}
    for name in ("weights", "means"):
        for how, dataset in (("raw", before), ("relabelled", after)):
            # Coordinates first, and one for a weight.
            of = np.moveaxis(dataset[name].values.reshape(*dataset["weights"].shape, -1), -1, 0)
            columns[f"{name}, {how}"] = [np.max([r_hat(x) for x in of[..., k]]) for k in visible]
    return pd.DataFrame(columns)


def rank_changes(tree: xr.DataTree, top: int = 4) -> float:
    """How often the heaviest components of an optimiser's best restart trade places: per 1,000 steps of its path.

    Counted among the `top` that end heaviest, between consecutive snapshots: pairs of them that change places. Trades
    that are undone before the next snapshot go unseen.
    """
    path = tree["optimisation"].to_dataset().isel(chain=draws.best_chain(tree))
    weights = path["weights"].values
    prominent = weights[:, np.argsort(-weights[-1], kind="stable")[:top]]
    ahead = prominent[:, :, None] > prominent[:, None, :]
    steps = float(path["snapshot_step"].values[-1] - path["snapshot_step"].values[0])
    return float((ahead[1:] != ahead[:-1]).sum() / 2 * 1000 / steps)
