"""Importance weights, smoothed, and their Pareto k-hat: of the draws of a variational guide, and of points left out."""

import warnings

import numpy as np
import xarray as xr

from ..errors import InputError


def k_hat(draws: xr.DataTree) -> np.ndarray:
    """Pareto k-hat of the importance weights of every chain, ``(chain,)``, by arviz-stats.

    Below 0.7 importance weights correct what is left of the guide's error; above, the guide misses much of the posterior
    (Vehtari et al. 2024; Yao et al. 2018). Raises `InputError` for draws without ``sample_stats/log_weight``, which
    guides have.
    """
    stats = draws["sample_stats"].to_dataset() if "sample_stats" in draws.children else {}
    if "log_weight" not in stats:
        method = draws.attrs.get("method", "unknown")
        raise InputError(
            f"k_hat: draws by {method} have no sample_stats/log_weight; give draws of a guide, such as svi"
        )
    return smoothed(stats["log_weight"].transpose("chain", "draw").values)[1]


def smoothed(log_weights: np.ndarray, efficiency: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smoothed log weights ``(m, S)``, normalised, and k ``(m,)``, of log weights ``(m, S)``, by arviz-stats.

    `efficiency`: effective draws a draw. k is infinite where weights of the tail to be smoothed, the ``min(S / 5,
    3 sqrt(S / efficiency))`` largest, are smaller than any number beside the largest: no tail is left to be fitted, and
    weights stay as they are.
    Source: Vehtari, Simpson, Gelman, Yao & Gabry (2024), JMLR 25.
    """
    from arviz_stats.base.array import array_stats  # It loads matplotlib, of which fitting has no need.

    # psislw takes log likelihoods, of which importance weights are the inverse.
    below = log_weights.max(axis=-1, keepdims=True) - log_weights
    with warnings.catch_warnings():  # Few draws have no tail to smooth, and some nothing but one: k says so, infinite.
        warnings.simplefilter("ignore")
        found, k = array_stats.psislw(below, r_eff=efficiency, axis=-1)  # pyright: ignore[reportArgumentType]
    size = log_weights.shape[-1]
    tail = int(np.ceil(min(size / 5, 3 * np.sqrt(size / efficiency))))
    lost = (below < -np.log(np.finfo(float).tiny)).sum(axis=-1) < tail
    as_they_are = -below - np.log(np.exp(-below).sum(axis=-1, keepdims=True))
    return np.where(lost[:, None], as_they_are, found), np.where(lost, np.inf, np.atleast_1d(k))
