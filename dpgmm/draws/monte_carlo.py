"""Numbers about the chains of one quantity: R-hat, effective draws, standard errors. By arviz-stats."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Num


def r_hat(values: Num[np.ndarray, "chain draw"]) -> float:
    """Rank-normalised split R-hat of ``(chain, draw)`` (Vehtari et al. 2021, eq. 14)."""
    return _scalar(_arviz().rhat(values))


def r_hat_of_halves(chain: Num[np.ndarray, " draw"]) -> float:
    """R-hat of the two halves of one chain ``(draw,)``: near 1 where the chain is stationary by itself."""
    half = len(chain) // 2
    return r_hat(np.stack([chain[:half], chain[-half:]]))


def nested_r_hat(superchains: list[int]) -> Callable[[Num[np.ndarray, "chain draw"]], float]:
    """R-hat of ``(chain, draw)`` for chains in groups (Margossian et al. 2024)."""
    return lambda values: _scalar(_arviz().rhat_nested(values, superchain_ids=superchains))


def ess_bulk(values: Num[np.ndarray, "chain draw"]) -> float:
    """Effective number of draws for the centre of ``(chain, draw)``, over all chains (Vehtari et al. 2021, section 4.2)."""
    return _scalar(_arviz().ess(values, method="bulk"))


def ess_tail(values: Num[np.ndarray, "chain draw"]) -> float:
    """The least effective number of draws for the quantiles at 5 % and 95 %, over all chains (section 4.3)."""
    return _scalar(_arviz().ess(values, method="tail", prob=(0.05, 0.95)))


def ess_of(values: Num[np.ndarray, "chain draw"], of: str) -> float:
    """Effective number of draws for the mean or, with ``of="sd"``, the standard deviation of ``(chain, draw)``."""
    return _scalar(_arviz().ess(values, method=of))


def mcse(values: Num[np.ndarray, "chain draw"], of: str = "mean") -> float:
    """Monte Carlo standard error of the mean or, with ``of="sd"``, of the standard deviation of ``(chain, draw)``."""
    return _scalar(_arviz().mcse(values, method=of))


def mcse_of_each(values: Num[np.ndarray, "chain draw M"]) -> Float[np.ndarray, " M"]:
    """`mcse` of the mean of each of M quantities, ``(chain, draw, M)`` to ``(M,)``.

    0 of what never moves, NaN of fewer than four draws a chain.
    """
    if values.shape[1] < 4:
        return np.full(values.shape[2], np.nan)
    found, moves = np.zeros(values.shape[2]), np.ptp(values, axis=(0, 1)) > 0
    if moves.any():
        found[moves] = _arviz().mcse(values[..., moves], chain_axis=0, draw_axis=1)
    return found


def row(
    values: Num[np.ndarray, "chain draw"], of_r_hat: Callable[[np.ndarray], float] | None = r_hat
) -> dict[str, float]:
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


def load() -> None:
    """Import arviz-stats now, so that the first number costs no more than the others."""
    _arviz()


def _scalar(value: Any) -> float:
    return float(np.asarray(value))


def _arviz() -> Any:
    """Imported when it is asked for the first number: it loads matplotlib, of which fitting has no need."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    return array_stats
