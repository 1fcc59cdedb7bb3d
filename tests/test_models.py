"""Every model in models/: plain JAX against NumPyro, values, gradients and Jacobians, and what the data may not change."""

from functools import partial

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


def numpyro_statement(posterior, flat, unravel):
    """Our coordinates' log density through NumPyro alone: its potential, its transforms, a numerical Jacobian of them."""

    def to_theirs(u):
        parameters, _ = posterior.constrain(unravel(u))
        return ravel_pytree(unconstrain_fn(posterior.program, (), {}, parameters))[0]

    _, unravel_theirs = ravel_pytree(unconstrain_fn(posterior.program, (), {}, posterior.constrain(unravel(flat))[0]))
    log_jacobian = jnp.linalg.slogdet(jax.jacfwd(to_theirs)(flat))[1]
    return log_jacobian - potential_energy(posterior.program, (), {}, unravel_theirs(to_theirs(flat)))


CASES = [(model, dim, "full") for model in MODELS for dim in (1, 3)]
CASES += [("stick_breaking", 3, covariance) for covariance in ("diagonal", "tied", "spherical")]


def start_of(posterior, seed=0):
    """Coordinates about zero: of covariances off the diagonal, too, as a diagonal start would hide half of a factor."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: posterior.unconstrain(posterior.initial(key)), jax.random.PRNGKey(0))
    return {site: rng.normal(0, 0.5, of.shape) for site, of in shapes.items()}


@pytest.fixture(scope="module", params=CASES, ids=lambda p: f"{p[0]}-{p[1]}D-{p[2]}")
def found(request):
    """All that is asked of a model, in one program."""
    model, dim, covariance = request.param
    posterior = load_model(model)(dataset(dim), truncation=4, covariance=covariance)

    start = start_of(posterior)

    @jax.jit
    def every(start):
        flat, unravel = ravel_pytree(start)
        parameters, _ = posterior.constrain(start)
        joint, their_joint = posterior.log_joint, lambda p: log_density(posterior.program, (), {}, p)[0]
        return {
            "back": posterior.unconstrain(parameters),
            "components": posterior.components(parameters),
            "log joint": jax.value_and_grad(joint)(parameters),
            "NumPyro's log joint": jax.value_and_grad(their_joint)(parameters),
            "log density": jax.value_and_grad(lambda u: posterior.log_density(unravel(u)))(flat),
            "NumPyro's log density": jax.value_and_grad(lambda u: numpyro_statement(posterior, u, unravel))(flat),
        }

    return jax.device_get(every(start)) | {"start": start, "dim": dim}


def test_log_joint_equals_numpyro(found):
    (value, gradient), (their_value, their_gradient) = found["log joint"], found["NumPyro's log joint"]
    np.testing.assert_allclose(value, their_value, rtol=1e-10)
    for site, of_site in their_gradient.items():
        np.testing.assert_allclose(gradient[site], of_site, rtol=1e-10, atol=1e-10, err_msg=site)


def test_density_of_coordinates_equals_numpyro(found):
    (ours, our_gradient), (value, gradient) = found["log density"], found["NumPyro's log density"]
    np.testing.assert_allclose(ours, value, rtol=1e-10)
    np.testing.assert_allclose(our_gradient, gradient, rtol=1e-10, atol=1e-10 * np.abs(gradient).max())


def test_a_dropped_jacobian_is_caught(found):
    assert abs(found["log joint"][0] - found["NumPyro's log density"][0]) > 1e-3


def test_unconstrain_inverts_constrain(found):
    for site, value in found["start"].items():
        np.testing.assert_allclose(found["back"][site], value, rtol=1e-12, atol=1e-12, err_msg=site)


def test_components_are_a_mixture(found):
    weights, means, covariances = found["components"]
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    assert means.shape == (4, found["dim"])
    assert (np.linalg.eigvalsh(covariances) > 0).all()


@partial(jax.jit, static_argnames="dtype")
def stick_coordinates(u, dtype):
    """Sticks and log Jacobian at three equal coordinates, the gradient of their sum, and the way back."""
    sites, transform = {"concentration": jnp.asarray(0.7, dtype)}, stick_logits(num_centred=1)
    both = lambda u: transform.constrain(jnp.full(3, u, dtype), sites)
    found = both(u)
    return found, jax.grad(lambda u: sum(jnp.sum(part) for part in both(u)))(u), transform.unconstrain(found[0], sites)


@pytest.mark.parametrize("u", [-95.0, -20.0, -15.0, 0.0, 4.0, 90.0])
def test_stick_coordinates_are_finite_in_float32(u):
    """Value, Jacobian and gradient at the far ends, against float64; and the way back."""
    single, gradient, back = stick_coordinates(np.float32(u), "float32")
    double, _, _ = stick_coordinates(np.float64(u), "float64")
    assert all(part.dtype == jnp.float32 and np.isfinite(part).all() for part in single)
    assert np.isfinite(gradient)
    for low, high in zip(single, double, strict=True):
        np.testing.assert_allclose(low, high, rtol=2e-5, atol=1e-5)
    if u < 80:
        np.testing.assert_allclose(back, np.full(3, u), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dim", [1, 3])
def test_shift_and_scale_of_the_data_change_nothing_else(model, dim):
    """Same coordinates, data 1000 times larger and shifted: the density changes by the units of the points alone."""
    a, b = (load_model(model)(dataset(dim, *units), truncation=4) for units in ((3.0, 5.0), (3000.0, -70.0)))
    u = start_of(a)

    def density(p):
        """By a program that both priors share."""
        arguments = u, p.arrays()
        return p.compile("density", lambda u, data: p.on(data).log_density(u), *arguments)[0](*arguments)

    np.testing.assert_allclose(density(a), density(b) + a.data.total_weight * dim * np.log(1000), rtol=1e-10)


def test_labels_of_the_symmetric_model_are_exchangeable():
    posterior = load_model("symmetric_dirichlet")(dataset(2), truncation=5)
    order = jnp.array([3, 0, 4, 1, 2])

    @jax.jit
    def both(u):
        p, _ = posterior.constrain(u)
        permuted = {site: v[order] if v.ndim else v for site, v in p.items()}
        return posterior.log_joint(permuted), posterior.log_joint(p)

    permuted, as_it_was = both(start_of(posterior))
    np.testing.assert_allclose(permuted, as_it_was, rtol=1e-13)


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
        ("return nothing", r"mine.py, line 4: NameError: name 'nothing' is not defined; correct the model"),
        ("return 3", r"mine.py: posterior\(...\) returned int; it must return a dpgmm.Posterior"),
        ("return replace(p, log_prior=lambda s: s['conc'])", r"mine.py, line 4: KeyError: 'conc'; correct the model"),
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
