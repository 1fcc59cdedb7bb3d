"""Pictures of the study of inference methods, from its numbers: one colour a method, intervals over repeats."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpgmm.report import plots

from .scores import NARROW, WIDE

OPEN = "mean-field"
"""What the name of a variant holds that is drawn dashed, with open markers."""
MARKERS = "o", "s", "^"


def density_against_seconds(numbers: dict[str, Any], methods: dict[str, str]) -> Figure:
    """Held-out log predictive density above the reference's, on the same split, against seconds."""
    canvas, axes = plots.figure(1, len(numbers["data"]), height=4.2, width=12)
    for axis, (name, of_data) in zip(axes.flat, numbers["data"].items(), strict=True):
        for who, m in of_data["methods"].items():
            mean, low, high = np.array(m["above reference"]).T
            style = _style(who, methods)
            axis.errorbar(m["seconds"], mean, [mean - low, high - mean], capsize=2.5, ms=5, lw=1.3, label=who, **style)
        axis.axhline(0, color="black", lw=1)
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set(xscale="log", xlabel="seconds (compilation apart)", title=name)
        axis.grid(alpha=0.25)
    axes.flat[0].set_ylabel("nats a held-out point above long Gibbs")
    canvas.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return canvas


def sd_ratios(numbers: dict[str, Any], methods: dict[str, str]) -> Figure:
    """Posterior standard deviations by those of the reference, at the largest budget."""
    canvas, axes = plots.figure(1, len(numbers["data"]), height=3.8, width=12)
    for axis, (name, of_data) in zip(axes.flat, numbers["data"].items(), strict=True):
        axis.axvspan(NARROW, WIDE, color="#dddddd", lw=0)
        axis.axvline(1, color="black", lw=1)
        for row, (who, m) in enumerate(of_data["methods"].items()):
            for i, (ratio, marker) in enumerate(zip(m["sd ratios"].values(), MARKERS, strict=True)):
                _dot(axis, row + 0.2 * (i - 1), ratio, _style(who, methods) | {"marker": marker})
        axis.set(xlabel="standard deviation by long Gibbs's", title=name, xlim=(-0.05, None))
        _names(axis, of_data["methods"], first=axis is axes.flat[0])
    quantities = list(next(iter(next(iter(numbers["data"].values()))["methods"].values()))["sd ratios"])
    handles = [
        axes.flat[0].plot([], [], marker, color="#555555", label=q)[0]
        for q, marker in zip(quantities, MARKERS, strict=True)
    ]
    canvas.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return canvas


def similarity_distances(numbers: dict[str, Any], methods: dict[str, str]) -> Figure:
    """Mean absolute difference of similarity matrices from the reference's, and the reference's own error."""
    canvas, axes = plots.figure(1, len(numbers["data"]), height=3.4, width=12)
    for axis, (name, of_data) in zip(axes.flat, numbers["data"].items(), strict=True):
        axis.axvline(of_data["reference"]["similarity error"].value, color="black", ls="--", lw=1)
        for row, (who, m) in enumerate(of_data["methods"].items()):
            _dot(axis, row, m["similarity"], _style(who, methods))
        axis.set(xlabel="mean absolute difference", title=name, xlim=(0, None))
        _names(axis, of_data["methods"], first=axis is axes.flat[0])
    return canvas


def exact_distances(numbers: dict[str, Any], methods: dict[str, str]) -> Figure:
    """Distances to the exact answer for few points, one panel a model and distance."""
    distances = {"total variation": "number of clusters, total variation", "similarity": "similarity, difference"}
    # A panel is as high as it has rows, besides its title and labels.
    heights = [1 + len(of_model) for of_model in numbers["exact"].values()]
    size = {"height": 1.2 + 0.45 * sum(heights), "width": 10}
    canvas, axes = plots.figure(len(heights), len(distances), **size, height_ratios=heights)
    for line, (model, of_model) in zip(axes, numbers["exact"].items(), strict=True):
        for axis, (distance, label) in zip(line, distances.items(), strict=True):
            for row, (who, d) in enumerate(of_model.items()):
                _dot(axis, row, d[distance], _style(who, methods))
            axis.set(xlabel=label, title=model, xlim=(0, None))
            _names(axis, of_model, first=axis is line[0])
    return canvas


PICTURES = density_against_seconds, sd_ratios, similarity_distances, exact_distances


def _style(who: str, methods: dict[str, str]) -> dict[str, Any]:
    hollow = OPEN in who
    fill = {"markerfacecolor": "white", "linestyle": "--"} if hollow else {"linestyle": "-"}
    return {"color": plots.colour(methods[who]), "marker": "o"} | fill


def _dot(axis: Axes, height: float, interval: Any, style: dict[str, Any]) -> None:
    value, low, high = interval
    axis.errorbar([value], [height], xerr=[[value - low], [high - value]], capsize=2.5, ms=5, **style)


def _names(axis: Axes, names: Any, *, first: bool) -> None:
    axis.set_yticks(range(len(names)), list(names) if first else [""] * len(names))
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.25)
