"""scikit-learn's variational mixture: draws of its q, and their importance weights under the model.

docs/own_method.md says how. It takes the stick-breaking model with full covariances and points of weight one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.nn import log_sigmoid
from jax.scipy.special import betaln
from jax.scipy.stats import gamma
from sklearn.mixture import BayesianGaussianMixture

import dpgmm
from dpgmm.densities import conjugate, gaussian


def draw(key, sticks, q, prior):
    """A draw of q as the model's sites, and its log density there."""
    key_sticks, key_a, key_components = random.split(key, 3)
    alpha, beta = sticks
    up, down = random.loggamma(key_sticks, sticks)
    logits = up - down
    log_q = jnp.sum(alpha * log_sigmoid(logits) + beta * log_sigmoid(-logits) - betaln(alpha, beta))
    shape, rate = prior.shape + len(logits), prior.rate - log_sigmoid(-logits).sum()
    a = random.gamma(key_a, shape) / rate
    log_q += gamma.logpdf(a, shape, scale=1 / rate)
    means, blocks = conjugate.sample(key_components, q)
    factors = blocks[:, 0]
    log_q += gaussian.log_density(means, q.mean, factors / jnp.sqrt(q.kappa)[:, None, None]).sum()
    log_q += gaussian.log_inverse_wishart(factors, q.df, q.scale_tril[:, 0]).sum()
    return {"stick_logits": logits, "concentration": a, "means": means, "scale_trils": factors}, log_q


def run(posterior, key, *, max_iter=2_000, restarts=4, draws_per_restart=1_000, progress=None):
    """Draws of q, the best of `restarts`.

    Options:
        `max_iter`: passes over the points, at most.
        `restarts`: starts, of which the best is kept.
        `draws_per_restart`: draws of its q.
    """
    prior, base = posterior.conjugate.concentration, posterior.conjugate.base
    root = np.asarray(base.scale_tril[0])
    fitted = BayesianGaussianMixture(
        n_components=posterior.options["truncation"], weight_concentration_prior=prior.shape / prior.rate,
        mean_prior=np.asarray(base.mean), mean_precision_prior=float(base.kappa),
        degrees_of_freedom_prior=float(base.df), covariance_prior=root @ root.T,
        n_init=restarts, max_iter=max_iter, random_state=int(key[-1]),
    ).fit(posterior.data.points)  # fmt: skip
    df = fitted.degrees_of_freedom_
    roots = jnp.asarray(np.linalg.cholesky(fitted.covariances_ * df[:, None, None])[:, None])
    q = jax.tree.map(jnp.asarray, gaussian.BaseMeasure(fitted.means_, fitted.mean_precision_, df, roots))
    keys, sticks = random.split(key, draws_per_restart), jnp.stack(fitted.weight_concentration_)[:, :-1]
    every = lambda keys, sticks, q: jax.lax.map(lambda key: draw(key, sticks, q, prior), keys)
    compiled, _ = posterior.compile("scikit_learn", every, keys, sticks, q)
    parameters, log_q = jax.tree.map(lambda leaf: leaf[None], compiled(keys, sticks, q))  # one chain
    tree = dpgmm.draws.build(posterior, parameters)
    tree["sample_stats"]["log_weight"] = tree["sample_stats"]["log_joint"] - np.asarray(log_q)
    return tree


def check(posterior):
    """Raise `InputError` where scikit-learn has no such prior or no such points."""
    prior, data = posterior.conjugate, posterior.data
    known = prior is not None and prior.weights == "sticks" and prior.covariance == "full" and prior.hyperprior is None
    if not known:
        raise dpgmm.InputError(
            f"scikit_learn: it has no prior like that of {posterior.name}; choose stick_breaking with covariance=full"
        )
    if (data.weights != 1).any():
        raise dpgmm.InputError(f"scikit_learn: {data.name} has weighted points; give points of weight 1")


METHOD = dpgmm.methods.Method(
    "scikit_learn",
    run,
    kind="guide",
    conjugate=True,
    allocates=True,
    check=check,
    quick={"restarts": 2, "draws_per_restart": 250},
    colour="#BCBD22",
)
