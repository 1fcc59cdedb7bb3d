"""Whether scales were named rightly: the points under the draws, beside other readings of the same numbers."""

from collections.abc import Iterator

import numpy as np

from . import prediction, spreads
from .thinning import evenly

LOOKS, ROWS = 20, 500
"""Draws and points that are looked at, evenly spaced."""
BETTER, IN_ALL = 0.05, 10.0
"""Nats a point, and nats for all points looked at, by which another reading must be better to be suspected."""
FAR = 1.0
"""Nats a point by which draws fall short of one Gaussian, from which on they can hardly be of these points."""


def suspicion(
    weights: np.ndarray, means: np.ndarray, values: np.ndarray, role: str, name: str, points: np.ndarray
) -> str | None:
    """What may have gone wrong with variable `name` read as `role`, in a sentence; None where nothing is suspicious.

    `values`: as they were given, ``(chain, draw, K or 1, D or 1)``, or matrices ``(chain, draw, K or 1, D, D)``. Draws of a
    posterior fit about as well as the best reading of their scales; precisions read as covariances do not.
    """
    looks = evenly(weights.shape[0] * weights.shape[1], LOOKS)
    flat = lambda a: a.reshape(-1, *a.shape[2:])[looks]
    weights, means, values, points = flat(weights), flat(means), flat(values), points[evenly(len(points), ROWS)]
    matrix = values.ndim > means.ndim
    of = spreads.MATRICES if matrix else spreads.NUMBERS
    with np.errstate(all="ignore"):
        given = _log_density(weights, means, of[role](values), points)
        found = {
            reading: _log_density(weights, means, c, points) for reading, c in _readings(values, role, matrix=matrix)
        }
        gaussian = _one_gaussian(points)
    best = max(found, key=lambda reading: found[reading], default="")
    gain = found.get(best, -np.inf) - given
    advice = f"as {best} they would have {found[best]:.3g}" if best and gain > BETTER else ""
    if not (advice and gain * len(points) > IN_ALL):
        if not given < gaussian - FAR:
            return None
        advice = f"one Gaussian gives them {gaussian:.3g}" + (f"; {advice}" if advice else "")
    return (
        f"{name} as {role}: the points have a log density of {given:.3g} nats each, {advice}. Is {name} rightly named?"
    )


def _one_gaussian(points: np.ndarray) -> float:
    """Log density of a point under the best Gaussian, nats, less one for each of its parameters, which fit noise (AIC).

    Minus infinity where the points lie in a subspace.
    """
    size, dim = points.shape
    sign, log_det = np.linalg.slogdet(2 * np.pi * np.e * np.atleast_2d(np.cov(points.T, bias=True)))
    return -0.5 * log_det - dim * (dim + 3) / 2 / size if size > dim and sign > 0 else -np.inf


def _readings(values: np.ndarray, role: str, *, matrix: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Variances, or covariances, by what else the same numbers may have been."""
    if matrix and role in ("covariances", "precisions"):
        yield "precisions" if role == "covariances" else "covariances", _inverse(spreads.MATRICES[role](values))
        if not np.triu(values, 1).any():
            yield "Cholesky factors", spreads.MATRICES["scale_trils"](values)
        return
    if matrix:
        yield "Cholesky factors of precisions", _inverse(spreads.MATRICES[role](values))
        return
    same = {"covariances": "variances", "scale_trils": "scales"}.get(role, role)
    yield from ((r, spreads.NUMBERS[r](values)) for r in ("scales", "variances", "precisions") if r != same)
    yield "log scales", np.exp(2 * values)
    yield "log variances", np.exp(values)


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """Inverses, NaN where one has none."""
    try:
        return np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        return np.full_like(matrices, np.nan)


def _log_density(weights: np.ndarray, means: np.ndarray, covariances: np.ndarray, points: np.ndarray) -> float:
    """Log density of a point under components ``(T, K, ...)``, nats: mean over points, median over draws."""
    matrix = covariances.ndim > means.ndim
    diagonal = np.diagonal(covariances, axis1=-2, axis2=-1) if matrix else covariances
    if not (np.isfinite(covariances).all() and (diagonal > 0).all()):
        return -np.inf
    whole = np.broadcast_to(covariances, (*means.shape, *(means.shape[-1:] if matrix else ())))
    per_point = np.asarray(prediction.log_densities(weights, means, whole, points)).mean(axis=-1)
    return float(np.nan_to_num(np.median(per_point), nan=-np.inf))
