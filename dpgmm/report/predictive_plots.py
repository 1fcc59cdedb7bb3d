"""Posterior predictive check: do data sets drawn from the posterior look like the data? Margin by margin."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from ..draws import answer, data_of, kind, prediction
from ..draws.thinning import evenly
from .views import View

REPLICATES, ROWS = 200, 5_000
"""Data sets that are drawn, one a draw, and the most points of each: of more rows, bands are those of so many."""
MARGINS = 4
"""Coordinates that are shown, at the most: those whose components lie furthest apart."""
BINS = 30
BANDS = 0.05, 0.25, 0.75, 0.95
"""Quantiles over the replicated data sets: bounds of the bands of 50 % and 90 %."""
GRID = np.linspace(0.01, 0.99, 99)


class Margin(NamedTuple):
    """One coordinate of the data beside that of replicated data sets.

    - `density` (B,): of the data in the bins between `edges` (B + 1,); `density_bands` (4, B): `BANDS` of the replicates'.
    - `excess` (G,): ``F_data(q(z)) - z`` at z in `GRID`, q the quantiles of all replicates together: the ECDF of the
      data's probability integral transform less that of a uniform; `excess_bands` (4, G).
    - `p`: share of replicates whose largest ``|excess|`` is that of the data or more. Near 0: the model does not fit.
    """

    name: str
    edges: Float[np.ndarray, " edges"]
    density: Float[np.ndarray, " B"]
    density_bands: Float[np.ndarray, "4 B"]
    excess: Float[np.ndarray, " G"]
    excess_bands: Float[np.ndarray, "4 G"]
    p: float

    @property
    def outside(self) -> int:
        """Number of bins in which the data leave the band of 90 %."""
        return int(((self.density < self.density_bands[0]) | (self.density > self.density_bands[-1])).sum())

    def words(self) -> str:
        """What the picture shows, in numbers."""
        return (
            f"{self.name}: {self.outside} of {len(self.density)} bins outside the 90 % band, largest PIT difference"
            f" {np.abs(self.excess).max():.2g}, as large in {self.p:.0%} of replicated data sets"
        )


def check(draws: xr.DataTree, seen: View, seed: int = 0) -> list[Margin]:
    """The margins of draws of a sampler or a guide (of its best restart), by data sets drawn from it; none of a point."""
    if kind(draws) == "point":
        return []
    data, tree = data_of(draws), answer(draws)
    length, chains = tree["posterior"].sizes["draw"], tree["posterior"].sizes["chain"]
    chosen = tree.isel(draw=evenly(length, max(1, REPLICATES // chains)))
    size = int(min(ROWS, max(1, round(float(data.total_weight)))))
    drawn = prediction.replicates(chosen, size, seed)
    drawn = drawn.reshape(-1, *drawn.shape[2:])
    furthest = sorted(seen.shown, key=lambda d: -seen.separation[d])[:MARGINS]
    return [margin(seen.names[d], data.points[:, d], data.weights, drawn[..., d]) for d in sorted(furthest)]


def margin(
    name: str, x: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"], drawn: Float[np.ndarray, "T n"]
) -> Margin:
    """The `Margin` of points of such weights beside T data sets of n points."""
    shares = weights / weights.sum()
    room = 0.05 * np.ptp(x) or 1.0
    edges = np.linspace(x.min() - room, x.max() + room, BINS + 1)
    width, size = np.diff(edges), drawn.shape[1]
    density = np.histogram(x, edges, weights=shares)[0] / width
    replicated = np.stack([np.histogram(row, edges)[0] / size / width for row in drawn])
    quantiles = np.quantile(drawn, GRID)
    order = np.argsort(x, kind="stable")
    cumulated = np.concatenate([[0.0], np.cumsum(shares[order])])
    excess = cumulated[np.searchsorted(x[order], quantiles, side="right")] - GRID
    others = np.stack([np.searchsorted(np.sort(row), quantiles, side="right") / size for row in drawn]) - GRID
    p = float((np.abs(others).max(axis=1) >= np.abs(excess).max()).mean())
    bands = lambda values: np.quantile(values, BANDS, axis=0)
    return Margin(name, edges, density, bands(replicated), excess, bands(others), p)


def picture(margins: list[Margin], tint: str) -> Figure:
    """Above, each margin's histogram on the bands of the replicates' histograms; below, its PIT on those of theirs."""
    count = len(margins)
    canvas = Figure(figsize=(9.0, 4.8), layout="constrained")
    axes = canvas.subplots(2, count, squeeze=False, height_ratios=(3, 2))
    for i, (of, (above, below)) in enumerate(zip(margins, axes.T, strict=True)):
        doubled = lambda row: np.append(row, row[-1])
        for low, high, label, alpha in ((0, 3, "90 %", 0.2), (1, 2, "50 %", 0.45)):
            style = {"color": tint, "alpha": alpha, "lw": 0, "label": f"{label} of replicates"}
            lower, upper = doubled(of.density_bands[low]), doubled(of.density_bands[high])
            above.fill_between(of.edges, lower, upper, step="post", **style)
            below.fill_between(GRID, of.excess_bands[low], of.excess_bands[high], **style)
        above.stairs(of.density, of.edges, color="black", lw=1.3, label="data")
        below.plot(GRID, of.excess, color="black", lw=1.3)
        below.axhline(0, color="#8a8a8a", lw=0.6)
        above.set(xlabel=of.name, ylim=(0, None), xlim=(of.edges[0], of.edges[-1]))
        below.set(xlabel="PIT", xlim=(0, 1))
        for axis in (above, below):
            axis.tick_params(labelsize=8)
        if i == 0:
            above.set_ylabel("density")
            below.set_ylabel("ECDF − uniform")
    canvas.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9
    )
    return canvas
