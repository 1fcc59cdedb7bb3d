"""Our NumPyro distributions behave as NumPyro's: shapes, supports, moments, gradients, plates, vmap, pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, log_likelihood
from numpyro.infer.util import log_density

from dpgmm.densities import mixture
from dpgmm.densities.distributions import (
    GaussianMixture,
    InverseWishartCholesky,
    LogGammas,
    PointMixture,
    StickLogits,
)

K, D, N = 3, 2, 5
FORMS = {"full": (K, D, D), "tied": (1, D, D), "diagonal": (K, D), "spherical": (K, 1)}


def parameters(form="full", batch=(), seed=0):
    rng = np.random.default_rng(seed)
    log_weights = np.log(rng.dirichlet(np.full(K, 3.0), batch or None))
    shape = FORMS[form]
    factors = rng.uniform(0.5, 1.5, (*batch, *shape))
    if len(shape) == 3:
        factors = np.tril(rng.normal(0, 0.3, (*batch, *shape)), -1) + factors * np.eye(D)
    return jnp.asarray(log_weights), jnp.asarray(rng.normal(0, 2, (*batch, K, D))), jnp.asarray(factors)


def omega(batch=()):
    return jnp.asarray(np.random.default_rng(1).uniform(0.5, 2.0, (*batch, N)))


CASES = {
    "sticks": lambda batch: StickLogits(jnp.full(batch, 1.7), 4),
    "log gammas": lambda batch: LogGammas(jnp.full(batch, 0.8), 3),
    "inverse Wishart": lambda batch: InverseWishartCholesky(jnp.full(batch, 6.0), jnp.eye(2) * 1.3),
    **{
        f"{name}, {form}": (lambda batch, form=form, make=make: make(form, batch))
        for form in FORMS
        for name, make in {
            "points": lambda form, batch: GaussianMixture(*parameters(form, batch), omega(batch)),
            "point": lambda form, batch: PointMixture(*parameters(form, batch)),
        }.items()
    },
}
cases = pytest.mark.parametrize("name", CASES)
# One program a test: op by op each shape of each operation is a program of its own, and the tests take minutes.
log_prob = jax.jit(lambda d, x: d.log_prob(x))
sample = jax.jit(lambda d, key, shape=(): d.sample(key, shape), static_argnames="shape")


@cases
@pytest.mark.parametrize("batch", [(), (2,), (3, 2)])
def test_shapes(name, batch):
    d = CASES[name](batch)
    assert d.batch_shape == batch
    assert not d.has_rsample
    shapes = [(), (4,), (2, 3)]

    @jax.jit
    def sampled(d, key):
        found = [d.sample(key, shape) for shape in shapes]
        return [(x, d.log_prob(x), d.support(x)) for x in found]

    for shape, (x, density, supported) in zip(shapes, sampled(d, random.key(0)), strict=True):
        assert x.shape == shape + batch + d.event_shape == d.shape(shape)
        assert density.shape == shape + batch
        assert np.all(supported)
        assert np.isfinite(density).all()


@cases
def test_a_batch_is_each_of_its_members(name):
    d = CASES[name]((7,))
    x = np.asarray(sample(d, random.key(1), (3,)))
    density = log_prob(d, x)
    flat, structure = jax.tree.flatten(d)
    batched = [jnp.ndim(leaf) > 0 and leaf.shape[0] == 7 for leaf in flat]
    assert any(batched)
    for b in (0, 6):
        one = jax.tree.unflatten(structure, [leaf[b] if own else leaf for leaf, own in zip(flat, batched, strict=True)])
        one._batch_shape = ()
        np.testing.assert_allclose(log_prob(one, x[:, b]), density[:, b], rtol=1e-12)


@cases
def test_flattened_expanded_and_mapped(name):
    d = CASES[name](())
    x = sample(d, random.key(2))
    leaves, structure = jax.tree.flatten(d)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(d)
    np.testing.assert_allclose(log_prob(again, x), d.log_prob(x), rtol=1e-12)
    wide = d.expand((4, 2))
    assert wide.batch_shape == (4, 2)
    assert jax.eval_shape(wide.sample, random.key(0)).shape == (4, 2, *d.event_shape)
    np.testing.assert_allclose(log_prob(wide, x), np.full((4, 2), log_prob(d, x)), rtol=1e-12)
    many = CASES[name]((3,))
    axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) and leaf.shape[0] == 3 else None, jax.tree.leaves(many))
    assert 0 in axes
    values = sample(many, random.key(3))

    def one(leaves, x):
        found = jax.tree.unflatten(jax.tree.structure(many), leaves)
        found._batch_shape = ()
        return found.log_prob(x)

    np.testing.assert_allclose(
        jax.jit(jax.vmap(one, in_axes=(axes, 0)))(jax.tree.leaves(many), values), log_prob(many, values), rtol=1e-12
    )


@pytest.mark.parametrize("name", [n for n in CASES if n != "inverse Wishart"])
def test_moments_are_those_of_samples(name):
    """Within five standard errors; of a variance by its own spread over draws."""
    d, size = CASES[name](()), 20_000
    x = np.asarray(sample(d, random.key(4), (size,)), float)
    error = x.std(axis=0) / size**0.5
    assert (np.abs(x.mean(axis=0) - d.mean) < 5 * error).all()
    squares = (x - x.mean(axis=0)) ** 2
    assert (np.abs(squares.mean(axis=0) - d.variance) < 5 * squares.std(axis=0) / size**0.5).all()


def differences(function, at, step=1e-6):
    flat = np.asarray(at, float)
    found = np.zeros(flat.size)
    for i in range(flat.size):
        h = np.zeros(flat.size)
        h[i] = step
        h = h.reshape(flat.shape)
        found[i] = (function(flat + h) - function(flat - h)) / (2 * step)
    return found.reshape(flat.shape)


@cases
def test_gradients_in_the_value_are_finite_differences(name):
    d = CASES[name](())
    x = sample(d, random.key(5))
    # Off the lower triangle a factor has no coordinates.
    mask = jnp.tril(jnp.ones(d.event_shape)) if name == "inverse Wishart" else jnp.ones(d.event_shape)
    function = jax.jit(lambda x: d.log_prob(x * mask))
    wanted = differences(function, x)
    assert np.abs(wanted).max() > 0
    for found in jax.jit(lambda x: [of(function)(x) for of in (jax.grad, jax.jacfwd, jax.jacrev)])(x):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_in_the_parameters_and_weights_are_finite_differences(form):
    arguments = (*parameters(form), omega())
    x = sample(GaussianMixture(*arguments), random.key(6))
    function = lambda *arguments: GaussianMixture(*arguments).log_prob(x)
    density, every = jax.jit(function), range(4)
    gradients = jax.jit(lambda *arguments: [of(function, every)(*arguments) for of in (jax.grad, jax.jacfwd)])
    for found in gradients(*arguments):
        for i in every:
            mask = np.tril(np.ones((D, D))) if i == 2 and len(FORMS[form]) == 3 else 1.0
            moved = lambda a, i=i, mask=mask: density(*arguments[:i], a * mask, *arguments[i + 1 :])
            np.testing.assert_allclose(found[i] * mask, differences(moved, arguments[i]) * mask, rtol=1e-5, atol=1e-6)
    of_means = lambda m: function(arguments[0], m, *arguments[2:])
    first = jax.jit(jax.grad(of_means))
    rows = differences(lambda m: first(m)[0, 0], arguments[1])
    np.testing.assert_allclose(jax.jit(jax.hessian(of_means))(arguments[1])[0, 0], rows, rtol=1e-4, atol=1e-5)


@pytest.mark.quick("densities")
def test_data_that_stand_still_cost_no_derivative():
    """Of the points none is taken unless they move: the program of a gradient in the means is as small as it was."""
    arguments = (*parameters(), jnp.zeros((N, D)), omega())
    of_means = jax.make_jaxpr(jax.grad(lambda m: mixture.log_likelihood(arguments[0], m, *arguments[2:])))(arguments[1])
    of_points = jax.make_jaxpr(jax.grad(lambda x: mixture.log_likelihood(*arguments[:3], x, arguments[4])))(
        arguments[3]
    )
    assert len(str(of_means)) < len(str(of_points))


def test_in_a_plate_and_pointwise():
    log_weights, means, factors = parameters()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(N, D)))

    def model(x=None):
        shift = numpyro.sample("shift", dist.Normal(0, 1))
        with numpyro.plate("points", N):
            return numpyro.sample("x", PointMixture(log_weights, means + shift, factors), obs=x)

    value, _ = log_density(model, (x,), {}, {"shift": jnp.array(0.3)})
    wanted = dist.Normal(0, 1).log_prob(0.3) + mixture.log_likelihood(log_weights, means + 0.3, factors, x)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    shifts = jnp.array([0.0, 0.3])
    pointwise = log_likelihood(model, {"shift": shifts}, x)["x"]
    assert pointwise.shape == (2, N)
    np.testing.assert_allclose(pointwise[1], mixture.log_density(log_weights, means + 0.3, factors, x), rtol=1e-12)
    drawn = handlers.trace(handlers.seed(model, 0)).get_trace()["x"]["value"]
    assert drawn.shape == (N, D)

    def batches():
        with numpyro.plate("groups", 4):
            numpyro.sample("x", GaussianMixture(log_weights, means, factors, omega()))

    trace = handlers.trace(handlers.seed(batches, 0)).get_trace()
    assert trace["x"]["value"].shape == (4, N, D)
    assert trace["x"]["fn"].log_prob(trace["x"]["value"]).shape == (4,)


def test_as_the_prior_of_a_latent_site_nuts_finds_its_mean():
    """Were the gradient in the value nought, as it was, the chain would be a random walk that accepts anything."""
    d = PointMixture(jnp.log(jnp.array([0.3, 0.7])), jnp.array([[-1.0], [1.0]]), jnp.array([[0.8], [0.6]]))
    weighted = GaussianMixture(d.log_weights, d.means, d.scale_trils, jnp.ones(1))

    def model():
        numpyro.sample("x", d)
        numpyro.sample("y", weighted)

    chain = MCMC(NUTS(model), num_warmup=300, num_samples=1_000, progress_bar=False)
    chain.run(random.key(0))
    draws = chain.get_samples()
    mean, sd = float(d.mean[0]), float(d.variance[0]) ** 0.5
    assert mean == pytest.approx(0.4)
    for values in (np.asarray(draws["x"])[:, 0], np.asarray(draws["y"])[:, 0, 0]):
        effective = numpyro.diagnostics.effective_sample_size(values[None])
        assert effective > 100
        assert abs(values.mean() - mean) < 4 * sd / effective**0.5


def test_weights_of_points_make_a_batch_too():
    log_weights, means, factors = parameters()
    d = GaussianMixture(log_weights, means, factors, omega((2,)))
    x = d.sample(random.key(0))
    assert x.shape == (2, N, D)
    wanted = [mixture.log_likelihood(log_weights, means, factors, x[b], omega((2,))[b]) for b in range(2)]
    np.testing.assert_allclose(d.log_prob(x), wanted, rtol=1e-12)
    assert d.log_prob(x[0]).shape == (2,)


@pytest.mark.quick("densities")
def test_values_out_of_the_support_are_told():
    d = InverseWishartCholesky(5.0, jnp.eye(2), validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support"):
        d.log_prob(-jnp.eye(2))
    with pytest.raises(ValueError, match="invalid concentration parameter"):
        StickLogits(-1.0, 3, validate_args=True)
