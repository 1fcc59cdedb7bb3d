"""Importance weights of the draws of a variational guide: Pareto k-hat."""

import numpy as np
import xarray as xr

from ..errors import InputError


def k_hat(draws: xr.DataTree) -> np.ndarray:
    """Pareto k-hat of the importance weights of every chain, ``(chain,)``, by arviz-stats.

    Below 0.7 importance weights correct what is left of the guide's error; above, the guide misses much of the posterior
    (Vehtari et al. 2024; Yao et al. 2018). Raises `InputError` for draws without ``sample_stats/log_weight``, which
    guides have.
    """
    from arviz_stats.base.array import array_stats  # It loads matplotlib, of which fitting has no need.

    stats = draws["sample_stats"].to_dataset() if "sample_stats" in draws.children else {}
    if "log_weight" not in stats:
        method = draws.attrs.get("method", "unknown")
        raise InputError(
            f"k_hat: draws by {method} have no sample_stats/log_weight; give draws of a guide, such as svi"
        )
    # psislw takes log likelihoods, of which importance weights are the inverse.
    rows = stats["log_weight"].transpose("chain", "draw").values
    return np.array([float(array_stats.psislw(row.max() - row)[1]) for row in rows])
