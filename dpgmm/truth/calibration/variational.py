"""What variational inference gets wrong: VSBC, a test of bias.

NumPyro's own `numpyro.infer.calibration.vsbc_diagnostic` cannot take these fits: it wants a guide of the NumPyro program,
whose coordinates are not those that our guides approximate, ranks site by site, where labels may switch, and fits by a
fixed number of steps. So the same test is made of the ranks of `simulate`.
"""

import numpy as np
import pandas as pd

from .ranks import Ranks, pit


def vsbc(ranks: Ranks) -> pd.DataFrame:
    """Bias of every quantity over simulations: columns `truth above`, `p`, index quantity.

    Under an unbiased, if over- or under-confident, approximation the share p of draws below the truth is symmetric about
    one half. `truth above` is the mean of p: above one half the truth tends to lie above the draws. `p` is the exact p-value
    of the largest difference between the distribution functions of p and 1 - p: ordered by distance from one half, sides
    are a fair random walk, of which that difference is the largest distance from zero (Butler 1969). Yao et al. (2018)
    use the two-sample Kolmogorov-Smirnov test of p and 1 - p, which would want them to be independent.
    """
    shares = pit(ranks)
    rows = {name: (u.mean(), symmetry_p_value(u)) for name, u in zip(ranks.names, shares.T, strict=True)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["truth above", "p"]).rename_axis("quantity")


def symmetry_p_value(pit: np.ndarray) -> float:
    """p-value of the hypothesis that ``pit (S,)`` is symmetric about one half, exact where no two lie equally far."""
    size = len(pit)
    sides = np.sign(pit - 0.5)[np.argsort(-np.abs(pit - 0.5), kind="stable")]
    farthest = int(np.abs(np.cumsum(sides)).max(initial=0))
    if farthest == 0:
        return 1.0
    # Walks that have stayed strictly within +-farthest: entry farthest - 1 is the origin.
    walks = (np.arange(2 * farthest - 1) == farthest - 1).astype(float)
    for _ in range(size):
        walks = np.convolve(walks, [0.5, 0.0, 0.5])[1:-1]
    return float(np.clip(1 - walks.sum(), 0.0, 1.0))
