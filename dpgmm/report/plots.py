"""The report's pictures: matplotlib figures from DataTrees, one function each. Captions are the report's."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import diagnostics
from ..diagnostics.answer import number_of_clusters
from ..draws import answer, best_chain
from ..methods import colour
from . import pair_plots
from .inline import of_arviz, tip
from .pair_plots import window
from .views import PROMINENT, View, one_draw, some_draws


def figure(rows: int = 1, columns: int = 1, height: float = 3.6, width: float = 9.0, **grid: Any):
    """A figure that owns no global state, with its axes as an array (rows, columns); `grid`: options of `subplots`."""
    canvas = Figure(figsize=(width, height), layout="constrained")
    return canvas, canvas.subplots(rows, columns, squeeze=False, **grid)


def fits(trees: dict[str, xr.DataTree], seen: View) -> Figure:
    """Data and the fitted density of every method's answer: D = 1 with a 90 % band, D > 1 in the plane of `seen`."""
    columns = min(3, len(trees))
    rows = -(-len(trees) // columns)
    canvas, axes = figure(rows, columns, height=3.4 * rows, width=4.2 * columns)
    canvas.set_layout_engine("constrained", h_pad=0.08)
    for axis in axes.flat[len(trees) :]:
        axis.remove()
    for axis, (method, draws) in zip(axes.flat, trees.items(), strict=False):
        _fit(axis, answer(draws), seen, colour(method))
        axis.set_title(method)
    canvas.supxlabel(seen.axes[0], fontsize=10)
    canvas.supylabel((*seen.axes, "density")[1], fontsize=10)
    return canvas


def loss(draws: xr.DataTree) -> Figure:
    """Loss minus the best loss of all restarts, on a log axis; the best restart in colour."""
    canvas, [[axis]] = figure()
    values = draws["optimisation"].to_dataset()["loss"].values
    above = values - np.nanmin(values) + 1e-3
    for chain, row in enumerate(above):
        best = chain == best_chain(draws)
        axis.plot(
            row, color=colour(draws.attrs["method"]) if best else "#bbbbbb", lw=1.6 if best else 0.7, zorder=2 + best
        )
    axis.set(yscale="log", xlabel="step", ylabel="loss above the best (nats)")
    return canvas


def final_weights(draws: xr.DataTree) -> Figure:
    """Weights of the best restart by label, in the order the model gave them."""
    canvas, [[axis]] = figure(height=2.8)
    weights = draws["posterior"].to_dataset()["weights"].values[best_chain(draws), -1]
    bars = axis.bar(np.arange(len(weights)), weights, color=colour(draws.attrs["method"]))
    for k, (bar, weight) in enumerate(zip(bars, weights, strict=True)):
        tip(bar, f"label {k}: weight {weight:.3g}")
    axis.set(xlabel="component label", ylabel="weight")
    return canvas


def paths(draws: xr.DataTree, seen: View) -> Figure:
    """Component means along the best restart's path, in the coordinates of the view's plane, one panel each.

    A line is as dark as its component is heavy at that time.
    """
    canvas, axes = figure(len(seen.axes), height=4 if seen.dim == 1 else 6)
    group = draws["optimisation"].to_dataset().isel(chain=best_chain(draws))
    steps, weights = group["snapshot_step"].values, group["weights"].values
    means = seen.points(group["means"].values)
    limits = window(means[weights >= min(PROMINENT, weights.max())])
    for e, axis in enumerate(axes[:, 0]):
        for k in np.argsort(weights[-1]):
            shade = np.clip(weights[:, k] / weights[-1].max(), 0.03, 1) ** 0.5
            axis.scatter(steps, means[:, k, e], s=14 * shade, alpha=shade, color=colour(draws.attrs["method"]), lw=0)
        axis.set_ylabel("component mean" if seen.dim == 1 else f"mean of {seen.axes[e]}", fontsize=9)
        if seen.dim > 1:
            axis.set_ylim(limits[:, e])
    axes[-1, 0].set(xlabel="step")
    return canvas


def frames(draws: xr.DataTree, seen: View, count: int = 30) -> list[tuple[int, Figure]]:
    """Frames of the training animation, early steps denser: the fitted density at snapshots of the best restart."""
    group = draws["optimisation"].to_dataset().isel(chain=best_chain(draws))
    total = group.sizes["snapshot"]
    chosen = np.unique((np.linspace(0, 1, count) ** 2 * (total - 1)).astype(int))
    pictures = []
    for index in chosen:
        canvas, [[axis]] = figure(width=7, height=3.6 if seen.dim == 1 else 5)
        snapshot = group.isel(snapshot=index)
        single = snapshot[[n for n, v in snapshot.data_vars.items() if "step" not in v.dims]].expand_dims(
            ("chain", "draw")
        )
        tree = xr.DataTree.from_dict({"posterior": single, "observed_data": draws["observed_data"].to_dataset()})
        _fit(axis, tree, seen, colour(draws.attrs["method"]))
        axis.set(xlabel=seen.axes[0], ylabel=(*seen.axes, "density")[1])
        step = int(snapshot["snapshot_step"])
        axis.set_title(f"step {step}")
        pictures.append((step, canvas))
    return pictures


def active(trees: dict[str, xr.DataTree]) -> Figure:
    """Share of draws (of restarts, for a point estimate) with each number of active components."""
    counts = {
        method: np.bincount(draws["sample_stats"].to_dataset()["active_components"].values.ravel())
        for method, draws in trees.items()
    }
    rows = {m: [(k, float(count / of.sum()), 0.0) for k, count in enumerate(of)] for m, of in counts.items()}
    return _numbers(rows, "active components", "share of draws")


def clusters(trees: dict[str, xr.DataTree]) -> Figure | None:
    """Probability of each number of occupied clusters by method, with Monte Carlo standard errors; None without any."""
    found = {method: number_of_clusters(answer(draws)) for method, draws in trees.items()}
    rows = {m: list(of.itertuples(index=False, name=None)) for m, of in found.items() if len(of)}
    return _numbers(rows, "clusters", "probability") if rows else None


def _numbers(rows: dict[str, list[tuple[int, float, float]]], what: str, share: str) -> Figure:
    """Bars side by side at whole numbers: of every method the number, its share and the share's standard error."""
    canvas, [[axis]] = figure(height=3)
    width = 0.8 / len(rows)
    for i, (method, of) in enumerate(rows.items()):
        numbers, shares, errors = np.array(of).T
        at = numbers + (i - (len(rows) - 1) / 2) * width
        bars = axis.bar(at, shares, width, color=colour(method), label=method)
        axis.errorbar(
            at[errors > 0], shares[errors > 0], errors[errors > 0], fmt="none", ecolor="#444444", elinewidth=1
        )
        for bar, number, height in zip(bars, numbers, shares, strict=True):
            tip(bar, f"{method}: {number:.0f} {what} in {height:.1%}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel=what, ylabel=share, ylim=(0, None))
    axis.legend(frameon=False)
    return canvas


def traces(draws: xr.DataTree, count: int = 3):
    """arviz-plots' trace plots of the weights of the labels that disagree most between chains, and of log likelihood."""
    import arviz_plots as azp

    weights = draws["posterior"].to_dataset()["weights"]
    apart = weights.mean("draw").std("chain").values
    labels = np.sort(np.argsort(-apart)[:count])
    data = {f"weight of label {k}": weights.isel(component=k, drop=True) for k in labels}
    data["log likelihood (invariant)"] = draws["sample_stats"].to_dataset()["total_log_likelihood"]
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({n: v.reset_coords(drop=True) for n, v in data.items()})})
    layout = {"figsize": (10, 6.5), "layout": "constrained", "sharex": True}
    plot = azp.plot_trace(tree, backend="matplotlib", col_wrap=2, figure_kwargs=layout)
    return of_arviz(plot)


def _fit(axis: Axes, draws: xr.DataTree, seen: View, tint: str) -> None:
    """Data, mean density and the components of one draw: on the line, or in the plane of the view."""
    if seen.dim == 1:
        _fit_1d(axis, draws, tint)
    else:
        data = draws["observed_data"].to_dataset()
        points, weights = seen.points(data["points"].values), data["point_weights"].values
        drawn, several = (seen.mixtures(m) for m in (one_draw(draws), some_draws(draws, pair_plots.DRAWS)))
        pair_plots.plane(
            axis, points[pair_plots.rows_shown(weights)], drawn, several, tint, window(points[weights > 0])
        )


def _fit_1d(axis: Axes, draws: xr.DataTree, tint: str) -> None:
    data = draws["observed_data"].to_dataset()
    points = data["points"].values[:, 0]
    margin = 0.05 * np.ptp(points) or 1.0
    grid = np.linspace(points.min() - margin, points.max() + margin, 300)
    share = data["point_weights"].values
    axis.hist(points, 80, weights=share, density=True, histtype="stepfilled", facecolor="#8a8a8a55", edgecolor="none")
    chosen = draws.isel(draw=slice(None, None, max(1, draws["posterior"].sizes["draw"] // 100)))
    density = np.exp(diagnostics.predictive_density(chosen, grid[:, None])[0]).reshape(-1, len(grid))
    if len(density) > 1:
        axis.fill_between(grid, *np.quantile(density, [0.05, 0.95], axis=0), color=tint, alpha=0.3, lw=0)
    axis.plot(grid, density.mean(axis=0), color=tint, lw=2)
    weights, means, covariances = one_draw(draws)
    for w, m, s in zip(weights, means[:, 0], covariances[:, 0, 0] ** 0.5, strict=True):
        height = w * np.exp(-0.5 * ((grid - m) / s) ** 2) / s / np.sqrt(2 * np.pi)
        [line] = axis.plot(grid, height, color=tint, lw=0.8, ls="--")
        tip(line, f"a component of weight {w:.3g}, mean {m:.4g}, scale {s:.3g}")
