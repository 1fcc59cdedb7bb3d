"""The picture of a calibration: how far ranks of the truth are from uniform, quantity by quantity."""

import numpy as np
import xarray as xr
from arviz_base.labels import BaseLabeller
from arviz_plots import PlotCollection, visuals  # pyright: ignore[reportPrivateImportUsage]
from arviz_stats.ecdf_utils import ecdf_pit
from matplotlib.figure import Figure

from ..truth.calibration.ranks import LEVEL, Ranks, pit
from .inline import of_arviz


def picture(ranks: Ranks, level: float = LEVEL) -> Figure:
    """arviz-plots' panels, one a quantity: ECDF of the PIT minus that of a uniform number, with arviz-stats' band.

    The band is that of `level` over all quantities (Bonferroni): a line that leaves it is evidence against the method.
    The panels are put together here: `plot_ecdf_pit` itself names its options otherwise in arviz-plots 0 and 1, and in
    1.3 its bands cannot be drawn with numpy 2.
    """
    shares = pit(ranks)
    panels = xr.Dataset({name: (("chain", "draw"), u[None]) for name, u in zip(ranks.names, shares.T, strict=True)})
    probability = 1 - (1 - level) / len(ranks.names)
    x, _, low, high = ecdf_pit(np.linspace(0, 1, len(shares)), probability, n_simulations=4_000)
    lines = panels.azstats.ecdf(dim=["chain", "draw"], pit=True)
    size = {"figsize": (11, 1.9 * -(-len(ranks.names) // 4) + 0.4), "layout": "constrained", "sharey": True}
    plot = PlotCollection.wrap(panels, backend="matplotlib", cols=["__variable__"], col_wrap=4, figure_kwargs=size)
    band = {"x": x, "y_bottom": low - x, "y_top": high - x, "color": "black", "alpha": 0.12}
    plot.map(visuals.fill_between_y, "band", data=lines, **band)
    plot.map(visuals.ecdf_line, "ecdf", data=lines)
    plot.map(visuals.labelled_title, "title", subset_info=True, labeller=BaseLabeller(), size=9)
    return of_arviz(plot)
