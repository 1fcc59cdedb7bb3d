"""Densities against scipy at a few places, and against the same oracle with each planted bug in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from joint import BASE

from dpgmm.densities import base_measure, conjugate, gaussian, sticks, transforms
from dpgmm.densities.distributions import LogGammas


def sticks_density():
    logits, a = np.array([0.3, -1.2, 2.0]), 1.7
    v = st.logistic.cdf(logits)
    truth = (st.beta.logpdf(v, 1, a) + st.logistic.logpdf(logits)).sum()
    return jax.jit(lambda l: sticks.log_density_logits(l, a))(logits), truth


def masses_density():
    x, shape = np.array([0.2, -3.0]), 0.4
    return jax.jit(lambda x: LogGammas(jnp.asarray(shape), 2).log_prob(x))(x), st.loggamma.logpdf(x, shape).sum()


def base_density():
    """Of the means given factors, and of variances, D = 1: everything in the normal-inverse-gamma."""
    mean, sd = np.array([1.5]), np.array([[0.6]])
    m, kappa, df, scale = (float(np.asarray(leaf).squeeze()) for leaf in BASE)
    of_variance = st.invgamma.logpdf(0.36, df / 2, scale=scale**2 / 2) + np.log(2 * 0.6)
    of_mean = st.norm.logpdf(1.5, m, 0.6 / np.sqrt(kappa))
    component = {"means": mean[None], "scale_trils": sd[None]}
    return jax.jit(lambda p: base_measure.log_prior(p, BASE, "full"))(component), of_variance + of_mean


def evidence():
    """Of three points, as a product of predictive t densities."""
    x, total = np.array([0.2, 1.5, -0.4]), 0.0
    mean, kappa, df, scale = (float(np.asarray(leaf).squeeze()) for leaf in BASE)
    psi, y = scale**2, x - mean
    for point in x:
        total += st.t.logpdf(point, df, mean, np.sqrt(psi * (kappa + 1) / (kappa * df)))
        psi += kappa / (kappa + 1) * (point - mean) ** 2
        mean, kappa, df = (kappa * mean + point) / (kappa + 1), kappa + 1, df + 1
    return jax.jit(lambda *a: conjugate.log_marginal(*a, base=BASE))(
        jnp.asarray(3.0), y.sum(keepdims=True), (y @ y)[None, None, None]
    ), total


def coordinates():
    """Jacobians of the maps to positive numbers and to sticks, against differentiation."""

    @jax.jit
    def both(u):
        maps = [
            lambda u, t=t: t.constrain(u, {"concentration": 0.8})
            for t in (transforms.positive(), transforms.stick_logits(1))
        ]
        truth = [jnp.linalg.slogdet(jax.jacfwd(lambda u, m=m: m(u)[0])(u))[1] for m in maps]
        return sum(m(u)[1] for m in maps), sum(truth)

    return both(jnp.array([0.3, -1.0]))


ORACLES = {f.__name__: f for f in (sticks_density, masses_density, base_density, evidence, coordinates)}
DENSITY_BUGS = [
    ("sticks_density", sticks, "log_density_logits", "off by one", lambda f: lambda l, a: f(l[:-1], a)),
    ("sticks_density", sticks, "log_density_logits", "a too large", lambda f: lambda l, a: f(l, a + 1)),
    ("sticks_density", sticks, "log_density_logits", "no log a", lambda f: lambda l, a: f(l, a) - 3 * jnp.log(a)),
    ("masses_density", jax.scipy.special, "gammaln", "no normaliser", lambda f: lambda x: 0.0 * x),
    ("base_density", gaussian, "multigammaln", "no normaliser", lambda f: lambda x, d: 0.0 * x),
    ("base_density", gaussian, "log_determinant", "no determinant", lambda f: lambda l, *mean: 0.0 * f(l, *mean)),
    ("base_density", gaussian, "log_inverse_wishart", "df", lambda f: lambda l, df, t: f(l, df + 1, t)),
    ("evidence", conjugate, "multigammaln", "no normaliser", lambda f: lambda x, d: 0.0 * x),
    ("evidence", conjugate, "LOG_PI", "no constant", lambda f: 0.0),
    (
        "coordinates",
        transforms,
        "positive",
        "no Jacobian",
        lambda f: lambda: f()._replace(constrain=without(f())),
    ),
    (
        "coordinates",
        transforms,
        "stick_logits",
        "no Jacobian",
        lambda f: lambda n: f(n)._replace(constrain=without(f(n))),
    ),
]


def without(transform):
    return lambda u, sites: (transform.constrain(u, sites)[0], 0.0)


@pytest.mark.parametrize("name", ORACLES)
def test_a_density_is_scipys(name):
    np.testing.assert_allclose(*ORACLES[name](), rtol=1e-10)


@pytest.mark.parametrize(
    ("oracle", "module", "name", "bug", "wrong"), DENSITY_BUGS, ids=[f"{b[0]}: {b[3]}" for b in DENSITY_BUGS]
)
def test_a_density_with_a_bug_is_not(oracle, module, name, bug, wrong, monkeypatch):
    monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    ours, truth = ORACLES[oracle]()
    assert abs(ours - truth) > 1e-3, bug
