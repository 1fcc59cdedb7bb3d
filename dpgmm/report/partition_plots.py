"""Pictures of a partition on the data: the estimate with its uncertainty, and the ends of its credible ball."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from ..partitions import Partition, num_clusters
from .pair_plots import OTHERS, PALETTE
from .views import View

UNSURE = 0.5
"""Uncertainty from which on an observation is ringed."""
FAINTEST = 0.15
"""Opacity of an observation whose company is wholly uncertain."""
COLOURS = *PALETTE[:-1], "#000000"
"""`PALETTE`, whose black is the page's ink."""
GOLDEN = (5**0.5 - 1) / 2


def clusters(draws: xr.DataTree, found: Partition, seen: View) -> Figure:
    """Four panels of the observations in the plane of `seen`, coloured by cluster: `panels`.

    Opacity in the first: one less the uncertainty of an observation; those of more than `UNSURE` are ringed. Where D = 1
    observations are spread over the height of the panel, which means nothing.
    """
    flat = seen.points(draws["observed_data"].to_dataset()["points"].values[found.observations])
    if seen.dim == 1:
        # Evenly spread, and the same every time.
        flat = np.column_stack([flat[:, 0], np.arange(len(flat)) * GOLDEN % 1])
    canvas = Figure(figsize=(9.0, 6.2 if seen.dim > 1 else 4.2), layout="constrained")
    axes = canvas.subplots(2, 2, sharex=True, sharey=True)
    shades = np.maximum(FAINTEST, 1 - found.uncertainty.values)
    for i, (axis, (title, labels)) in enumerate(zip(axes.flat, panels(found).items(), strict=True)):
        _scatter(axis, flat, colours(labels, found.partition.values), shades if i == 0 else np.ones(len(flat)))
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
    unsure = found.uncertainty.values > UNSURE
    axes[0, 0].scatter(*flat[unsure].T, s=34, facecolor="none", edgecolor="black", lw=0.8)
    if seen.dim == 1:
        axes[0, 0].set(yticks=[])
    canvas.supxlabel(seen.axes[0], fontsize=10)
    if seen.dim > 1:
        canvas.supylabel(seen.axes[1], fontsize=10)
    return canvas


def panels(found: Partition) -> dict[str, Integer[np.ndarray, " n"]]:
    """What the panels show, by title: the estimate, and of each end of the credible ball the first of its partitions."""
    ball = found.credible_ball
    ends = {"fewest clusters": ball.upper, "most clusters": ball.lower, "furthest away": ball.horizontal}
    distances = ball.upper_distance, ball.lower_distance, ball.radius
    named = {f"estimate: {found.num_clusters} clusters": found.partition.values}
    for (name, labels), distance in zip(ends.items(), distances, strict=True):
        named[f"{name}: {num_clusters(labels[:1])[0]}, at {distance:.2g} {found.units}"] = labels[0]
    return named


def colours(labels: Integer[np.ndarray, " n"], estimate: Integer[np.ndarray, " n"]) -> np.ndarray:
    """A colour an observation: that of the estimate's cluster which shares most with its own, each colour once.

    Of the estimate: `COLOURS`, largest cluster first. Clusters that are left over take what is left of it, then `OTHERS`.
    """
    shared = np.zeros((labels.max() + 1, estimate.max() + 1), int)
    np.add.at(shared, (labels, estimate), 1)
    rank = np.argsort(np.argsort(-shared.sum(axis=0), kind="stable"))
    rows, columns = linear_sum_assignment(shared, maximize=True)
    matched = shared[rows, columns] > 0
    place = dict(zip(rows[matched].tolist(), rank[columns[matched]].tolist(), strict=True))
    taken = set(place.values())
    free = iter([i for i in range(len(COLOURS)) if i not in taken])
    for cluster in np.argsort(-shared.sum(axis=1), kind="stable").tolist():
        if cluster not in place:
            place[cluster] = next(free, len(COLOURS))
    tints = [*COLOURS, OTHERS]
    return np.array([tints[min(place[label], len(COLOURS))] for label in labels.tolist()], object)


def words(found: Partition) -> str:
    """What the picture shows, in numbers."""
    return (
        f"{'; '.join(panels(found))}. {(found.uncertainty.values > UNSURE).sum()} of {len(found.partition)} observations"
        f" more uncertain than {UNSURE}"
    )


def _scatter(axis: Axes, flat: Float[np.ndarray, "n 2"], tints: np.ndarray, shades: np.ndarray) -> None:
    axis.scatter(*flat.T, s=14, c=tints.tolist(), alpha=shades.tolist(), lw=0)
