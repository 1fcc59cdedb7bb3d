"""Numbers about the chains of one quantity: R-hat, effective draws, standard errors. By arviz-stats."""

from collections.abc import Callable
from typing import Any

import numpy as np


def r_hat(values: np.ndarray) -> float:
    """Rank-normalised split R-hat of ``(chain, draw)`` (Vehtari et al. 2021, eq. 14)."""
    return _scalar(_arviz().rhat(values))


def r_hat_of_halves(chain: np.ndarray) -> float:
    """R-hat of the two halves of one chain ``(draw,)``: near 1 where the chain is stationary by itself."""
    half = len(chain) // 2
    return r_hat(np.stack([chain[:half], chain[-half:]]))


def nested_r_hat(superchains: list[int]) -> Callable[[np.ndarray], float]:
    """R-hat of ``(chain, draw)`` for chains in groups (Margossian et al. 2024)."""
    return lambda values: _scalar(_arviz().rhat_nested(values, superchain_ids=superchains))


def ess_bulk(values: np.ndarray) -> float:
    """Effective number of draws for the centre of ``(chain, draw)``, over all chains (Vehtari et al. 2021, section 4.2)."""
    return _scalar(_arviz().ess(values, method="bulk"))


def ess_tail(values: np.ndarray) -> float:
    """The least effective number of draws for the quantiles at 5 % and 95 %, over all chains (section 4.3)."""
    return _scalar(_arviz().ess(values, method="tail", prob=(0.05, 0.95)))


def ess_of(values: np.ndarray, of: str) -> float:
    """Effective number of draws for the mean or, with ``of="sd"``, the standard deviation of ``(chain, draw)``."""
    return _scalar(_arviz().ess(values, method=of))


def mcse(values: np.ndarray, of: str = "mean") -> float:
    """Monte Carlo standard error of the mean or, with ``of="sd"``, of the standard deviation of ``(chain, draw)``."""
    return _scalar(_arviz().mcse(values, method=of))


def row(values: np.ndarray, of_r_hat: Callable[[np.ndarray], float] | None = r_hat) -> dict[str, float]:
    """Mean, sd, MCSE of the mean, ESS of bulk and tail, and R-hat of ``(chain, draw)``; what cannot be said is NaN.

    No R-hat where `of_r_hat` is None. Values that are no numbers make R-hat infinite. Chains that never move agree
    perfectly at the same value, R-hat 1, and not at all at others.
    """
    nan = float("nan")
    found = {
        "mean": values.mean(),
        "sd": values.std(),
        "mcse_mean": nan,
        "ess_bulk": nan,
        "ess_tail": nan,
        "r_hat": nan,
    }
    if values.shape[1] < 4:
        return found
    if not np.isfinite(values).all():
        return found | ({} if of_r_hat is None else {"r_hat": float("inf")})
    if (np.ptp(values, axis=1) == 0).all():
        found |= {"mcse_mean": 0.0, "r_hat": 1.0 if np.ptp(values) == 0 else float("inf")}
    else:
        found |= {"mcse_mean": mcse(values), "ess_bulk": ess_bulk(values), "ess_tail": ess_tail(values)}
        found |= {} if of_r_hat is None else {"r_hat": of_r_hat(values)}
    return found | ({"r_hat": nan} if of_r_hat is None else {})


def _scalar(value: Any) -> float:
    return float(np.asarray(value))


def _arviz() -> Any:
    """Imported when it is asked for the first number: it loads matplotlib, of which fitting has no need."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    return array_stats
