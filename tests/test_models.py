"""Every model in models/: plain JAX against NumPyro, values, gradients and Jacobians, and what the data may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import log_density, potential_energy, unconstrain_fn

import dpgmm
from dpgmm import InputError
from dpgmm.data import Dataset
from dpgmm.densities.transforms import stick_logits
from dpgmm.model.loading import load_model, names

MODELS = names("models")


def dataset(dim, scale=3.0, shift=5.0):
    rng = np.random.default_rng(1)
    return Dataset(rng.normal(size=(40, dim)) * scale + shift, rng.uniform(0.5, 2.0, 40))


def numpyro_statement(posterior, unconstrained):
    """Our coordinates' log density through NumPyro alone: its potential, its transforms, a numerical Jacobian of them."""
    flat, unravel = ravel_pytree(unconstrained)

    def to_theirs(u):
        parameters, _ = posterior.constrain(unravel(u))
        return ravel_pytree(unconstrain_fn(posterior.program, (), {}, parameters))[0]

    _, unravel_theirs = ravel_pytree(unconstrain_fn(posterior.program, (), {}, posterior.constrain(unconstrained)[0]))

    def value(u):
        log_jacobian = jnp.linalg.slogdet(jax.jacfwd(to_theirs)(u))[1]
        return log_jacobian - potential_energy(posterior.program, (), {}, unravel_theirs(to_theirs(u)))

    return jax.jit(jax.value_and_grad(value))(flat)


CASES = [(model, dim, "full") for model in MODELS for dim in (1, 3)]
CASES += [("stick_breaking", 3, covariance) for covariance in ("diagonal", "tied", "spherical")]


@pytest.fixture(params=CASES, ids=lambda p: f"{p[0]}-{p[1]}D-{p[2]}")
def posterior(request):
    model, dim, covariance = request.param
    return load_model(model)(dataset(dim), truncation=4, covariance=covariance)


@pytest.fixture
def start(posterior):
    """A start with off-diagonal covariances: a diagonal one would hide half of a Cholesky factor."""
    unconstrained = posterior.unconstrain(posterior.initial(jax.random.PRNGKey(3)))
    flat, unravel = ravel_pytree(unconstrained)
    return unravel(flat + 0.2 * jax.random.normal(jax.random.PRNGKey(4), flat.shape))


def test_log_joint_equals_numpyro(posterior, start):
    parameters, _ = posterior.constrain(start)
    theirs = lambda p: log_density(posterior.program, (), {}, p)[0]
    value, ours_gradient = jax.jit(jax.value_and_grad(posterior.log_joint))(parameters)
    their_value, their_gradient = jax.jit(jax.value_and_grad(theirs))(parameters)
    np.testing.assert_allclose(value, their_value, rtol=1e-10)
    for site, gradient in their_gradient.items():
        np.testing.assert_allclose(ours_gradient[site], gradient, rtol=1e-10, atol=1e-10, err_msg=site)


def test_density_of_coordinates_equals_numpyro(posterior, start):
    value, gradient = numpyro_statement(posterior, start)
    np.testing.assert_allclose(posterior.log_density(start), value, rtol=1e-10)
    ours = ravel_pytree(jax.jit(jax.grad(posterior.log_density))(start))[0]
    np.testing.assert_allclose(ours, gradient, rtol=1e-10, atol=1e-10 * np.abs(gradient).max())


def test_a_dropped_jacobian_is_caught(posterior, start):
    value, _ = numpyro_statement(posterior, start)
    without = posterior.log_joint(posterior.constrain(start)[0])
    assert abs(without - value) > 1e-3


def test_unconstrain_inverts_constrain(posterior, start):
    back = posterior.unconstrain(posterior.constrain(start)[0])
    for site, value in start.items():
        np.testing.assert_allclose(back[site], value, rtol=1e-12, atol=1e-12, err_msg=site)


@pytest.mark.parametrize("u", [-95.0, -20.0, -15.0, 0.0, 4.0, 90.0])
def test_stick_coordinates_are_finite_in_float32(u):
    """Value, Jacobian and gradient at the far ends, against float64; and the way back."""
    transform = stick_logits(num_centred=1)

    def both(u, dtype):
        return transform.constrain(jnp.full(3, u, dtype), {"concentration": jnp.asarray(0.7, dtype)})

    total = lambda u: sum(jnp.sum(part) for part in both(u, jnp.float32))
    single, double = both(u, jnp.float32), both(u, jnp.float64)
    assert all(np.isfinite(part).all() for part in single)
    assert np.isfinite(jax.grad(total)(jnp.float32(u)))
    for low, high in zip(single, double, strict=True):
        np.testing.assert_allclose(low, high, rtol=2e-5, atol=1e-5)
    if u < 80:
        back = transform.unconstrain(single[0], {"concentration": jnp.float32(0.7)})
        np.testing.assert_allclose(back, np.full(3, u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dim", [1, 3])
def test_shift_and_scale_of_the_data_change_nothing_else(model, dim):
    """Same coordinates, data 1000 times larger and shifted: the density changes by the units of the points alone."""
    a, b = (load_model(model)(dataset(dim, *units), truncation=4) for units in ((3.0, 5.0), (3000.0, -70.0)))
    u = a.unconstrain(a.initial(jax.random.PRNGKey(0)))
    units = a.data.total_weight * dim * np.log(1000)
    np.testing.assert_allclose(a.log_density(u), b.log_density(u) + units, rtol=1e-10)


def test_components_are_a_mixture(posterior, start):
    weights, means, covariances = posterior.components(posterior.constrain(start)[0])
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    assert means.shape == (4, posterior.data.dim)
    assert (np.linalg.eigvalsh(covariances) > 0).all()


def test_labels_of_the_symmetric_model_are_exchangeable():
    posterior = load_model("symmetric_dirichlet")(dataset(2), truncation=5)
    p = posterior.initial(jax.random.PRNGKey(0))
    order = jnp.array([3, 0, 4, 1, 2])
    permuted = {site: v[order] if v.ndim else v for site, v in p.items()}
    np.testing.assert_allclose(posterior.log_joint(permuted), posterior.log_joint(p), rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 0}, "truncation = 0: it must be a whole number, 1 or more"),
        ({"rate": -1.0}, "rate = -1.0: it must be a positive number"),
        ({"df": 1.0}, "df = 1.0: it must be a number above 2"),
        ({"colour": 3}, "has no option 'colour'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        load_model("stick_breaking")(dataset(1), **options)


def test_unknown_model_is_guessed():
    with pytest.raises(InputError, match="did you mean 'stick_breaking'"):
        load_model("stick_braking")


def test_a_users_file_is_a_model(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from dpgmm import load_model\nposterior = load_model('stick_breaking')\n")
    assert load_model(path)(dataset(1), truncation=3).options["truncation"] == 3
    path.write_text("1/0")
    with pytest.raises(InputError, match="cannot be imported: ZeroDivisionError"):
        load_model(path)
    path.write_text("x = 1")
    with pytest.raises(InputError, match="no function posterior"):
        load_model(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("return nothing", r"mine.py, line 4: NameError: name 'nothing' is not defined; mend the model"),
        ("return 3", r"mine.py: posterior\(...\) returned int; it must return a dpgmm.Posterior"),
        ("return replace(p, log_prior=lambda s: s['conc'])", r"mine.py, line 4: KeyError: 'conc'; mend the model"),
    ],
)
def test_a_mistake_in_a_users_model_is_one_line(line, message, tmp_path):
    path = tmp_path / "mine.py"
    imports = "from dataclasses import replace; from dpgmm import load_model"
    built = "p = load_model('stick_breaking')(data, truncation=3)"
    path.write_text(f"{imports}\ndef posterior(data):\n    {built}\n    {line}\n")
    with pytest.raises(InputError, match=message):
        load_model(path)(dataset(1))


def test_a_model_takes_anything_that_makes_a_dataset():
    assert load_model("stick_breaking")([1.0, 2.0, 4.0], truncation=3).data.size == 3
    with pytest.raises(InputError, match="fit takes a posterior, not list"):
        dpgmm.fit([1.0, 2.0], "nuts")
