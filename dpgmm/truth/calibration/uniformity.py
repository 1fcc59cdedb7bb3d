"""Are these numbers a uniform sample? The worst excursion of their distribution function, and its exact p-value.

Säilynoja, Bürkner & Vehtari (2022): at the points ``z_i = i / S`` the count ``S F(z_i)`` of S uniform numbers is
Binomial(S, z_i). The excursion is the smallest tail probability of these counts, ``gamma = min_i min(P(B <= c_i),
P(B >= c_i))``; all numbers with a larger one lie within the band. They find the band by simulation (as arviz-stats does,
whose pictures we use), here its probability is computed.
"""

import numpy as np
from scipy.special import gammaln  # pyright: ignore[reportAttributeAccessIssue]  # not annotated
from scipy.stats import binom, poisson


def excursion(pit: np.ndarray) -> float:
    """``gamma`` of ``pit (S,)``, numbers between 0 and 1: small where they are far from uniform."""
    size = len(pit)
    places = np.arange(1, size) / size
    counts = np.searchsorted(np.sort(pit), places, side="right")
    below, above = binom.cdf(counts, size, places), binom.sf(counts - 1, size, places)
    return float(np.minimum(below, above).min(initial=1.0))


def uniformity_p_value(gamma: float, size: int) -> float:
    """Probability that `size` uniform numbers have an excursion of `gamma` or less, exact but for rounding.

    The counts at ``z_i = i / S`` are those of a Poisson process of rate S, given that S points fall into (0, 1). So the
    probability to stay within the band is a forward recursion over i with Poisson(1) steps, paths outside being cut off,
    divided by ``P(Poisson(S) = S)``. Source: Moscovich & Nadler (2017), section 2.
    """
    if gamma >= 1:
        return 1.0
    counts, places = np.arange(size + 1), np.arange(1, size)[:, None] / size
    # An excursion equal to gamma is outside: rounding must not let the observed path itself slip in.
    least = gamma * (1 + 1e-9)
    within = (binom.cdf(counts, size, places) > least) & (binom.sf(counts - 1, size, places) > least)
    steps = poisson.pmf(counts, 1)
    paths = (counts == 0).astype(float)
    for allowed in within:
        paths = np.where(allowed, np.convolve(paths, steps)[: size + 1], 0.0)
    log_total = size * np.log(size) - size - gammaln(size + 1)
    stays = np.convolve(paths, steps)[size] / np.exp(log_total)
    return float(np.clip(1 - stays, 0.0, 1.0))
