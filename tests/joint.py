"""Draws of the joint distribution of parameters and data by numpy and scipy, an independent statement of the model; and
checks that a transition kernel leaves that distribution alone, and that the same kernel with a bug in it does not.

A kernel is compiled once a check, with all of its bugs in it behind a switch, an argument of the program: number -1 is the
kernel as it is.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from jax import random

from dpgmm import calibration
from dpgmm.densities.concentration import Concentration
from dpgmm.densities.gaussian import BaseMeasure
from dpgmm.model.posterior import Conjugate

R = 8_000
"""Replicates of a batch."""
PRIOR = Concentration(2.0, 1.0)
BASE = BaseMeasure(jnp.array([0.7]), jnp.asarray(0.3), jnp.asarray(5.0), jnp.array([[[1.3]]]))
STICKS, DIRICHLET = (Conjugate(BASE, PRIOR, rule) for rule in ("sticks", "dirichlet"))


# Draws: leading axis of R replicates.


def concentrations(rng):
    return rng.gamma(PRIOR.shape, 1 / PRIOR.rate, R)


def components(rng, number, base=BASE):
    """Means and standard deviations, (R, number, 1) and (R, number, 1, 1)."""
    mean, kappa, df, scale = (float(np.asarray(leaf).squeeze()) for leaf in base)
    variances = st.invgamma(df / 2, scale=scale**2 / 2).rvs((R, number), rng)
    means = mean + rng.normal(size=(R, number)) * np.sqrt(variances / kappa)
    return means[..., None], np.sqrt(variances)[..., None, None]


def stick_weights(rng, a, number):
    """Logits of ``number - 1`` sticks, and weights."""
    v = -np.expm1(-rng.exponential(size=(R, number - 1)) / a[:, None])
    v = np.clip(v, 1e-300, 1 - 1e-16)
    left = np.cumprod(np.concatenate([np.ones((R, 1)), 1 - v], axis=1), axis=1)
    return np.log(v) - np.log1p(-v), np.concatenate([v, np.ones((R, 1))], axis=1) * left


def labels_of(rng, weights, size):
    """Allocations of `size` points, (R, size)."""
    edges = np.cumsum(weights, axis=1)[:, None]
    return np.minimum((edges < rng.uniform(size=(R, size, 1))).sum(axis=-1), weights.shape[1] - 1)


def counts_of(labels, number):
    return (labels[..., None] == np.arange(number)).sum(axis=1).astype(float)


def seats(rng, a, size):
    """Partitions by the Chinese restaurant process: a newcomer joins an earlier guest, or with weight a nobody."""
    labels = np.zeros((R, size), int)
    for i in range(1, size):
        friend = labels[np.arange(R), rng.integers(0, i, R)]
        alone = rng.uniform(size=R) * (a + i) < a
        labels[:, i] = np.where(alone, labels[:, :i].max(axis=1) + 1, friend)
    return labels


def points_of(rng, labels, means, trils):
    noise = rng.normal(size=labels.shape)
    return (
        np.take_along_axis(means[..., 0], labels, 1)[..., None]
        + (np.take_along_axis(trils[..., 0, 0], labels, 1) * noise)[..., None]
    )


def of_mixture(rng):
    weights = stick_weights(rng, concentrations(rng), 3)[1]
    means, trils = components(rng, 3)
    labels = labels_of(rng, weights, 3)
    points = points_of(rng, labels, means, trils)
    return {"weights": weights, "means": means, "trils": trils, "labels": labels, "points": points}


# Checks.


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """`start(rng)`, a state of arrays; `step(key, state)` of one replicate, what changes; `look(state)`, what is looked at.

    Bugs are (where, name, bug): ``bug(right, on)`` is the function with a bug in it where `on`. `steps` of the kernel.
    `slow`: it takes ten seconds to compile. `subtle`: bugs that take more replicates to see, `long`: several rounds.
    """

    start: Callable
    step: Callable
    look: Callable
    bugs: list
    steps: int = 1
    slow: bool = False
    subtle: tuple[Callable, ...] = ()
    long: tuple[Callable, ...] = ()


@functools.cache
def program(check):
    """``(which, keys, states) -> states``: the check's kernel with bug number `which`, -1 for none."""

    def one(which, key, state):
        with pytest.MonkeyPatch.context() as patch:
            for i, (where, attribute, bug) in enumerate(check.bugs):
                right = where[attribute] if isinstance(where, dict) else getattr(where, attribute)
                setter = patch.setitem if isinstance(where, dict) else patch.setattr
                setter(where, attribute, bug(right, which == i))
            step = lambda i, s: s | check.step(random.fold_in(key, i), s)
            return jax.lax.fori_loop(0, check.steps, step, state)

    # Less of LLVM's optimisation: compiling takes half as long, and these programs run for a moment.
    fast = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)), compiler_options=fast)


def verdict(check, which=-1):
    """Whether the kernel with bug number `which` in it leaves the joint distribution alone."""
    batches = 16 if which >= 0 and check.bugs[which][2] in check.subtle else 1

    def batch(key):
        key_start, key_steps = random.split(key)
        state = check.start(np.random.default_rng(np.asarray(key_start)))
        after = program(check)(which, random.split(key_steps, R), state)
        return check.look(state), check.look(jax.device_get(after))

    def sample(key):
        return jax.tree.map(lambda *q: np.concatenate(q), *(batch(k) for k in random.split(key, batches)))

    return calibration.joint_test(sample, random.PRNGKey(5))


def kernel_tests(checks):
    """Two tests: every kernel leaves the joint distribution alone, and each of its planted bugs does not."""
    kernels = [pytest.param(check, marks=_marks(check.slow), id=name) for name, check in checks.items()]

    def of_bug(name, check, i):
        bug = check.bugs[i][2]
        marks = _marks(check.slow or bug in check.subtle, long=bug in check.long)
        return pytest.param(check, i, marks=marks, id=f"{name}: {bug.__name__}")

    bugs = [of_bug(name, check, i) for name, check in checks.items() for i in range(len(check.bugs))]

    @pytest.mark.parametrize("check", kernels)
    def kernel(check):
        found = verdict(check)
        assert found.passed, found

    @pytest.mark.parametrize(("check", "which"), bugs)
    def bug(check, which):
        found = verdict(check, which)
        assert not found.passed, found

    return kernel, bug


def _marks(slow, *, long=False):
    return [pytest.mark.slow] if slow else [pytest.mark.long] if long else []
