"""Joint-distribution tests of transition kernels, with p-values and a bound on false alarms.

Parameters from the prior and data from them are an exact draw of the joint distribution, and a kernel that leaves the
posterior invariant leaves it so: after any number of steps, data held, parameters and data together still follow it. The
distribution after the kernel is compared with that of other draws before it. Geweke (2004) compares means over one long
chain that resimulates data; independent exact starts give p-values without autocorrelation (Gandy & Scott 2020, section 3).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import Array, random
from scipy.stats import ks_2samp

Sample = Callable[[Array], tuple[Mapping[str, Array], Mapping[str, Array]]]
"""``sample(key) -> (before, after)``: quantities ``(replicates,)`` of independent replicates, by name."""


class Verdict(NamedTuple):
    """`passed`; the smallest p-value, adjusted for the number of quantities, its quantity, and the rounds it took."""

    passed: bool
    p: float
    quantity: str
    rounds: int


def joint_test(sample: Sample, key: Array, *, level: float = 1e-5, rounds: int = 5, growth: int = 4) -> Verdict:
    """Whether a kernel leaves the joint distribution of parameters and data invariant.

    Sequential: while the smallest p-value is neither clearly harmless nor damning, the test is repeated with fresh
    replicates, `growth` times as many from the second round on. A right kernel fails with a probability of at most
    `level`, whatever `sample` is. Source: Gandy & Scott (2020), algorithm 3.
    """
    beta = level / rounds
    gamma = beta ** (1 / rounds)
    p, name = 1.0, ""
    for i in range(rounds):
        keys = random.split(random.fold_in(key, i), 1 if i == 0 else growth)
        batches = [jax.device_get(sample(k)) for k in keys]
        before, after = (
            {q: np.concatenate([b[side][q] for b in batches]) for q in batches[0][side]} for side in (0, 1)
        )
        found = p_values(before, after)
        name = min(found, key=found.__getitem__)
        p = min(1.0, found[name] * len(found))
        if p <= beta:
            return Verdict(passed=False, p=p, quantity=name, rounds=i + 1)
        if p > gamma + beta:
            return Verdict(passed=True, p=p, quantity=name, rounds=i + 1)
        beta /= gamma
    return Verdict(passed=True, p=p, quantity=name, rounds=rounds)


def p_values(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Two-sample Kolmogorov-Smirnov p-value of every quantity; the first half before against the second half after.

    The halves are of different replicates, so that the samples are independent. Conservative for discrete quantities.
    A quantity that is not finite gives zero.
    """

    def one(x: np.ndarray, y: np.ndarray) -> float:
        half = len(x) // 2
        first, second = x[:half], y[half:]
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            return 0.0
        return ks_2samp(first, second, method="asymp").pvalue  # pyright: ignore[reportAttributeAccessIssue]

    return {name: one(np.asarray(before[name]), np.asarray(after[name])) for name in before}
