"""Numbers with their uncertainty: means over draws, means over repeats, and shares of successes."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from ..errors import InputError

BATCHES = 10
"""Batches of consecutive draws that every chain is cut into for a Monte Carlo standard error."""


class Estimate(NamedTuple):
    """A mean over draws, and its Monte Carlo standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        """Value and error, the error to two digits: 4.213 ± 0.025."""
        digits = 1 - math.floor(math.log10(self.error)) if 0 < self.error < math.inf else 3
        return f"{self.value:.{max(0, min(digits, 6))}f} ± {self.error:.{max(0, min(digits, 6))}f}"


def batch_means(values: np.ndarray, batches: int = BATCHES) -> Estimate:
    """Mean of ``(chain, draw)`` and its Monte Carlo standard error by batch means.

    ``error^2 = var(means of batches) / their number``, over batches of consecutive draws of all chains, or
    ``var(means of chains) / their number`` where that is larger: chains that stay apart make long batches look certain.
    A chain's last draws are left out of the error where batches do not divide it. Source: Flegal & Jones (2010), section
    3. Raises `InputError` for fewer than two chains or fewer draws a chain than batches.
    """
    chains, draws = values.shape
    if chains < 2 or draws < batches:
        raise InputError(f"{chains} chains of {draws} draws: batch means need two chains of {batches} draws, or more")
    length = draws // batches
    of_batches = values[:, : length * batches].reshape(chains * batches, length).mean(axis=1)
    error = lambda means: means.std(ddof=1) / math.sqrt(len(means))
    return Estimate(float(values.mean()), float(max(error(of_batches), error(values.mean(axis=1)))))


class Interval(NamedTuple):
    """A mean over repeats with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    form = ".3g"

    def __str__(self) -> str:
        """0.412 [0.35, 0.47]."""
        return f"{self.value:{self.form}} [{self.low:{self.form}}, {self.high:{self.form}}]"


def interval(values: Any) -> Interval:
    """``mean +- t_{0.975, R - 1} s / sqrt(R)`` over R independent repeats (Student's t interval)."""
    values = np.asarray(values, float)
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


class Share(Interval):
    """A share of successes and its 95 % Wilson interval, in percent: 41% [35%, 47%]."""

    form = ".0%"


def wilson(successes: int, trials: int) -> Share:
    """Share of successes with its 95 % interval. Source: Wilson (1927)."""
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Share(successes / trials, float(interval.low), float(interval.high))
