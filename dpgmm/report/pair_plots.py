"""Pictures of data and components in two dimensions or more: a plane, and pair plots. No global state is touched."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..draws import allocations
from ..draws.components import Components
from ..draws.thinning import evenly
from ..partitions import Partition
from . import views
from .views import View

PALETTE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#111111"
"""Colours of clusters, largest first (after Okabe & Ito 2008); all lesser clusters share `OTHERS`."""
OTHERS, UNCLUSTERED = "#8a8a8a", "#c8c8c8"
"""Colours of lesser clusters, and of points that are in none."""
POINTS = 2_000
"""Points that are drawn, evenly spaced over the rows, where there are more."""
DRAWS = 60
"""Draws that densities are means of."""
CELLS = 90
"""Cells of a grid, along each axis, that densities are evaluated on."""
BESIDE = {"loc": "upper left", "bbox_to_anchor": (0.55, 0.99)}
"""Place of the legend where there are two coordinates: above the diagonal."""
SHARES = 0.9, 0.5
"""Mass of the regions of highest density that are outlined."""


class ClusterColours(NamedTuple):
    """What the colours mean.

    - `of_points` (R,): colour of every point that is drawn. `of_components` (K,): of every component of the draw shown.
    - `legend`: colours and what they stand for, in order.
    """

    of_points: np.ndarray
    of_components: np.ndarray
    legend: list[tuple[str, str]]


def window(points: np.ndarray, margin: float = 0.08) -> np.ndarray:
    """Bounds ``(2, E)`` of the points and a margin about them."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.where(high > low, margin * (high - low), np.maximum(1.0, 0.1 * np.abs(high)))
    return np.stack([low - room, high + room])


def rows_shown(weights: np.ndarray, first: np.ndarray | None = None, most: int = POINTS) -> np.ndarray:
    """Rows of points that carry weight: all, or `most` of them evenly spaced, besides those in `first`."""
    rows = np.flatnonzero(weights)
    spread = rows[evenly(len(rows), most)]
    return spread if first is None else np.union1d(spread, first)


def plane(
    axis: Axes, points: np.ndarray, drawn: Components, several: Components, tint: str, bounds: np.ndarray
) -> None:
    """Points, ellipses of the components `drawn` with their weights, and regions of highest density of `several`.

    All in two dimensions; `several` has a leading axis of draws, over which densities are averaged.
    """
    axis.scatter(*points.T, s=7, color="#9a9a9a", lw=0, zorder=1)
    density_regions(axis, several, tint, bounds)
    ellipses(axis, drawn, [tint] * len(drawn.weights))
    annotate_weights(axis, drawn, bounds)
    axis.set(xlim=bounds[:, 0], ylim=bounds[:, 1])


def density_regions(axis: Axes, several: Components, tint: str, bounds: np.ndarray, *, filled: bool = True) -> None:
    """Regions of highest density, `SHARES` of the mass in the window, of the mean over draws of mixtures."""
    x, y = (np.linspace(bounds[0, e], bounds[1, e], CELLS) for e in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    values = views.density(several, grid).mean(axis=0).reshape(CELLS, CELLS)
    heights = views.levels(values, SHARES)
    if not np.all(np.diff(heights, prepend=0, append=np.inf) > 0):
        return
    if filled:
        axis.contourf(x, y, values, [*heights, max(values.max(), 2 * heights[-1])], colors=tint, alpha=0.16, zorder=0)
    axis.contour(x, y, values, heights, colors=tint, linewidths=0.6, linestyles=["--", "-"], alpha=0.7, zorder=2)


def ellipses(axis: Axes, drawn: Components, colours: Sequence[str] | np.ndarray, width: float = 1.0) -> None:
    """Ellipses at Mahalanobis distance 2, as wide a line as the component is heavy."""
    for w, mean, covariance, tint in sorted(zip(*drawn, colours, strict=True), key=lambda row: row[0]):
        outline = views.ellipse(mean, covariance)
        axis.plot(*outline, color=tint, lw=width * (0.6 + 2.4 * w), zorder=3, alpha=0.45 + 0.55 * min(1, 10 * w))


def annotate_weights(axis: Axes, drawn: Components, bounds: np.ndarray, least: float = 0.05) -> None:
    """Weights at the means of heavy components, but where a heavier one's stands."""
    taken: list[np.ndarray] = []
    for k in np.argsort(-drawn.weights):
        place = (drawn.means[k] - bounds[0]) / (bounds[1] - bounds[0])
        free = all((np.abs(place - other) > (0.16, 0.06)).any() for other in taken)
        if drawn.weights[k] >= least and free and ((place > 0.03) & (place < 0.97)).all():
            taken.append(place)
            style = {"ha": "center", "va": "center", "fontsize": 8, "zorder": 5, "clip_on": True}
            outline = [withStroke(linewidth=2.5, foreground="white")]
            axis.text(drawn.means[k, 0], drawn.means[k, 1], f"{drawn.weights[k]:.2f}", path_effects=outline, **style)


def clusters(draws: xr.DataTree, found: Partition | None, points: np.ndarray, rows: np.ndarray) -> ClusterColours:
    """Colours by the partition estimate, where there is one, else by the most probable component of the draw shown.

    `rows` are those of `points` that are drawn, ascending, all observations of the partition among them. With a
    partition, a component takes the colour of the cluster that most of its points are in.
    """
    drawn = views.one_draw(draws)
    share = lambda some: np.asarray(allocations.probabilities(*(leaf[None] for leaf in drawn), some)[0])
    if found is None:
        heaviest = np.argsort(-drawn.weights, kind="stable")
        tints = np.full(len(heaviest), OTHERS, object)
        tints[heaviest[: len(PALETTE)]] = PALETTE[: len(heaviest)]
        legend = [(str(tints[k]), f"weight {drawn.weights[k]:.2g}") for k in heaviest[: len(PALETTE)]]
        labels = share(points[rows]).argmax(axis=1)
        legend = [*legend, *_rest(len(heaviest) - len(PALETTE), "component")]
        return ClusterColours(tints[labels], tints, legend)
    labels = found.partition.values
    sizes = np.bincount(labels)
    largest = np.argsort(-sizes, kind="stable")
    tints = np.full(len(sizes), OTHERS, object)
    tints[largest[: len(PALETTE)]] = PALETTE[: len(sizes)]
    of_points = np.full(len(rows), UNCLUSTERED, object)
    of_points[np.searchsorted(rows, found.observations)] = tints[labels]
    together = share(points[found.observations]).T @ np.eye(len(sizes))[labels]
    of_components = np.where(together.sum(axis=1) >= 0.5, tints[together.argmax(axis=1)], OTHERS)
    legend = [(str(tints[c]), f"cluster of {sizes[c]}") for c in largest[: len(PALETTE)]]
    legend += _rest(len(sizes) - len(PALETTE), "cluster")
    if (of_points == UNCLUSTERED).any():
        legend.append((UNCLUSTERED, "not among those clustered"))
    return ClusterColours(of_points, of_components, legend)


def _rest(count: int, what: str) -> list[tuple[str, str]]:
    return [(OTHERS, f"{count} lesser {what}{'s' if count > 1 else ''}")] if count > 0 else []


def pairs(draws: xr.DataTree, seen: View, tint: str, found: Partition | None = None) -> Figure:
    """Pair plot of the coordinates ``seen.shown``: scatter and ellipses below, densities on, the plane above the diagonal.

    Points and ellipses have the colours of `clusters`; ellipses are projections of the components of one draw, at
    Mahalanobis distance 2. Diagonal: histogram, the mean marginal density in `tint`, and its 90 % band over draws.
    Above, for D > 2: the same in the view's plane.
    """
    observed = draws["observed_data"].to_dataset()
    points, weights = observed["points"].values, observed["point_weights"].values
    rows = rows_shown(weights, None if found is None else found.observations)
    tints = clusters(draws, found, points, rows)
    drawn, several = views.one_draw(draws), views.some_draws(draws, DRAWS)
    bounds, size = window(points[weights > 0]), len(seen.shown)
    canvas = Figure(figsize=(9.0, 9.0 if size > 2 else 6.5))
    axes = canvas.subplots(size, size, squeeze=False)
    top = 0.93 if size > 2 else 0.98
    canvas.subplots_adjust(left=0.1, right=0.98, bottom=0.075, top=top, wspace=0.07, hspace=0.07)
    for (i, j), axis in np.ndenumerate(axes):
        down, across = seen.shown[i], seen.shown[j]
        if i < j:
            axis.remove()
            continue
        if i == j:
            one = views.coordinates(several, [down])
            _diagonal(axis, points[:, down], weights, one, bounds[:, down], tint)
        else:
            both = [across, down]
            scatter(axis, points[rows][:, both], tints.of_points)
            ellipses(axis, views.coordinates(drawn, both), tints.of_components, 1.0 if size == 2 else 0.7)
            axis.set(xlim=bounds[:, across], ylim=bounds[:, down])
        _label(
            axis,
            seen.names[across],
            seen.names[down] if i > j else "density",
            bottom=i == size - 1,
            first=j == 0,
            ticks=5 if size < 4 else 3,
        )
    if seen.projected:
        axis = canvas.add_axes(_corner(axes[0, 0], axes[-1, -1], size))
        flat = seen.points(points[rows])
        scatter(axis, flat, tints.of_points)
        limits = window(seen.points(points[weights > 0]))
        density_regions(axis, seen.mixtures(several), tint, limits, filled=False)
        ellipses(axis, seen.mixtures(drawn), tints.of_components)
        axis.set(xlim=limits[:, 0], ylim=limits[:, 1])
        _label(axis, seen.axes[0], seen.axes[1], bottom=True, first=True, ticks=5, size=8)
    handles = [Line2D([], [], color=c, marker="o", ls="", ms=5, label=text) for c, text in tints.legend]
    place = {"loc": "upper center", "ncols": min(5, len(handles))} if size > 2 else BESIDE
    canvas.legend(handles=handles, fontsize=8, frameon=False, **place)
    return canvas


def scatter(axis: Axes, points: np.ndarray, colours: np.ndarray) -> None:
    """Points in their colours, those of no cluster below the others."""
    order = np.argsort(colours != UNCLUSTERED, kind="stable")
    axis.scatter(*points[order].T, s=6 if len(points) < 1_000 else 3, c=colours[order].tolist(), lw=0, alpha=0.7)


def _diagonal(
    axis: Axes, x: np.ndarray, weights: np.ndarray, several: Components, bounds: np.ndarray, tint: str
) -> None:
    axis.hist(x, 40 if len(x) >= 1_000 else 25, range=tuple(bounds), weights=weights, density=True, color="#d9d9d9")
    grid = np.linspace(bounds[0], bounds[1], 250)
    values = views.density(several, grid[:, None])
    if len(values) > 1:
        axis.fill_between(grid, *np.quantile(values, [0.05, 0.95], axis=0), color=tint, alpha=0.3, lw=0)
    axis.plot(grid, values.mean(axis=0), color=tint, lw=1.5)
    axis.set(xlim=bounds, yticks=[])


def _label(axis: Axes, below: str, left: str, *, bottom: bool, first: bool, ticks: int, size: int = 9) -> None:
    """Names and ticks on the outer panels only."""
    axis.tick_params(labelsize=7, labelbottom=bottom, labelleft=first, length=2.5)
    axis.xaxis.set_major_locator(MaxNLocator(ticks, prune="both"))
    if left != "density":
        axis.yaxis.set_major_locator(MaxNLocator(ticks, prune="both"))
    axis.set_xlabel(below if bottom else "", fontsize=size)
    axis.set_ylabel(left if first else "", fontsize=size)


def _corner(first: Axes, last: Axes, size: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of the largest panel above the diagonal, its own labels left out of it."""
    right, top = last.get_position().x1, first.get_position().y1
    cell = (top - last.get_position().y0) / size, (right - first.get_position().x0) / size
    half = size // 2
    width = (half + 0.55 if size % 2 else half - 0.45) * cell[1]
    height = (half - 0.4) * cell[0]
    return right - width, top - height, width, height
