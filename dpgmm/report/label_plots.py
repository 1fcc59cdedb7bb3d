"""Pictures of labels: permutations, ranks along a path, similarity matrices, traces and ranks raw and relabelled."""

from itertools import pairwise
from typing import Any

import arviz_plots as azp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..draws import best_chain
from ..draws.thinning import evenly
from ..partitions import Partition
from ..relabelling.labelled import Relabelling
from .inline import of_arviz
from .plots import colour, figure


def permutations(relabelled: Relabelling, count: int = 6) -> Figure:
    """Heat map: for each draw of each chain, the original label of the heaviest relabelled components."""
    after = relabelled.draws["posterior"].to_dataset()["weights"].values
    top = np.argsort(-after.mean(axis=(0, 1)))[:count]
    labels = relabelled.permutations.values[..., top]
    shown = np.unique(labels)
    position = np.searchsorted(shown, labels)
    canvas, axes = figure(1, len(labels), height=2.8)
    style = {"aspect": "auto", "interpolation": "nearest", "cmap": "turbo", "vmin": 0, "vmax": len(shown) - 1}
    for chain, axis in enumerate(axes[0]):
        axis.imshow(position[chain].T, **style)
        axis.set(title=f"chain {chain}", xlabel="draw", yticks=np.arange(len(top)))
        axis.set_yticklabels([f"{after[..., k].mean():.3f}" for k in top] if chain == 0 else [])
    axes[0, 0].set_ylabel("component, by mean weight")
    bar = canvas.colorbar(axes[0, -1].images[0], ax=axes[0, -1], label="original label")
    ticks = evenly(len(shown), 8).tolist()
    bar.set_ticks(ticks, labels=[str(shown[t]) for t in ticks])
    return canvas


def ranks_along_path(draws: xr.DataTree, count: int = 8) -> Figure:
    """Bump chart: rank by weight of the components that end heaviest, along the best restart's path."""
    path = draws["optimisation"].to_dataset().isel(chain=best_chain(draws))
    ranks = 1 + np.argsort(np.argsort(-path["weights"].values, axis=1, kind="stable"), axis=1)
    canvas, [[axis]] = figure(height=3.6)
    last = np.argsort(ranks[-1])[:count]
    shades = np.linspace(1, 0.25, len(last))
    for k, shade in zip(last, shades, strict=True):
        axis.plot(path["snapshot_step"].values, ranks[:, k], color=colour(draws.attrs["method"]), alpha=shade, lw=2)
        axis.annotate(f" label {k}", (path["snapshot_step"].values[-1], ranks[-1, k]), va="center", fontsize=8)
    axis.set(xlabel="step", ylabel="rank by weight", ylim=(ranks[:, last].max() + 0.5, 0.5))
    axis.margins(x=0.08)
    return canvas


def similarity(found: Partition) -> Figure:
    """Similarity matrix, observations ordered by the estimated partition, with its clusters outlined."""
    labels = found.partition.values
    sizes = np.bincount(labels)
    within = [found.similarity.values[i, labels == labels[i]].mean() for i in range(len(labels))]
    order = np.lexsort((-np.asarray(within), -sizes[labels] * 10_000 + labels))
    canvas, [[axis]] = figure(height=4.6, width=5.6)
    image = axis.imshow(found.similarity.values[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1)
    edges = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    for first, last in pairwise(edges):
        square = [first, last, last, first, first], [first, first, last, last, first]
        axis.plot(*(np.array(s) - 0.5 for s in square), color="#D55E00", lw=1.5)
    axis.set(xlabel="observation, by cluster", ylabel="observation, by cluster")
    canvas.colorbar(image, ax=axis, label="probability to share a cluster")
    return canvas


def agreement(table: xr.DataArray) -> Figure:
    """Heat map of `dpgmm.relabelling.agreement`: share of draws that two methods label alike."""
    names = [str(n) for n in table.coords[table.dims[0]].values]
    canvas, [[axis]] = figure(height=3.6, width=5.4)
    axis.imshow(table.values, cmap="Greens", vmin=0, vmax=1)
    for (i, j), share in np.ndenumerate(table.values):
        axis.text(j, i, f"{share:.2f}", ha="center", va="center", fontsize=8, color="white" if share > 0.6 else "black")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    return canvas


def traces(draws: xr.DataTree, relabelled: Relabelling, count: int = 2, *, ranks: bool = False) -> Figure:
    """arviz-plots' traces (or rank plots) of the weights of the heaviest components, raw above, relabelled below."""
    before, after = (d["posterior"].to_dataset()["weights"] for d in (draws, relabelled.draws))
    top = np.argsort(-after.values.mean(axis=(0, 1)))[:count]
    apart = before.mean("draw").std("chain").values
    raw = np.sort(np.argsort(-apart)[:count])
    data = {f"raw: weight of label {k}": before.isel(component=k, drop=True) for k in raw}
    data |= {f"relabelled: weight of component {i + 1}": after.isel(component=k, drop=True) for i, k in enumerate(top)}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({n: v.reset_coords(drop=True) for n, v in data.items()})})
    layout = {"figsize": (10, 6), "layout": "constrained"}
    if not ranks:
        return of_arviz(azp.plot_trace(tree, backend="matplotlib", col_wrap=count, figure_kwargs=layout))
    # The band of one uniform sample: those that arviz-stats 0.8 simulates for two or three chains may hold everything.
    band: dict[Any, Any] = {"ecdf_pit": {"n_chains": 1}}
    return of_arviz(azp.plot_rank(tree, backend="matplotlib", col_wrap=count, figure_kwargs=layout, stats=band))
