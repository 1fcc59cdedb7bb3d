"""Compiled programs: a posterior of other data and of the same shape compiles nothing, and gets its own answer."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import dpgmm
from dpgmm.methods import REGISTRY
from dpgmm.model.programs import Programs

SHORT = {  # Shorter than `Method.quick`, and without moves, of which each compiles a program.
    "map": {"restarts": 2, "steps": 20, "snapshots": 2},
    "svi": {"restarts": 1, "max_steps": 500, "draws_per_restart": 8},
    "nuts": {"chains": 1, "warmup": 10, "draws_per_chain": 10, "moves": "swaps"},
    "gibbs": {"chains": 1, "warmup": 5, "draws_per_chain": 10},
    "blocked_gibbs": {"chains": 1, "warmup": 5, "draws_per_chain": 10, "split_merges": 0, "pair_moves": 0},
    "cavi": {"restarts": 1, "max_steps": 10, "moves": 0, "draws_per_restart": 10},
}


@contextlib.contextmanager
def compiled():
    """Names of what XLA compiles meanwhile."""
    names = []

    def note(event, _, **of):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(of.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


def stick_breaking(scale=1.0, **options):
    points = random.normal(random.PRNGKey(0), (12, 1)) * scale
    return dpgmm.load_model("stick_breaking")(np.asarray(points), truncation=3, **options)


@pytest.mark.parametrize("method", REGISTRY)
def test_a_new_posterior_compiles_nothing(method):
    """Data of twice the scale: the draws are of twice the scale, so nothing of the first prior is left in the programs."""
    short = SHORT.get(method, REGISTRY[method].quick)
    fit = lambda scale: dpgmm.fit(stick_breaking(scale), method, compression=False, **short)["posterior"]
    first = fit(1.0)
    with compiled() as names:
        second = fit(2.0)
    assert names == []
    np.testing.assert_allclose(second["means"], 2 * first["means"], rtol=1e-6)
    np.testing.assert_allclose(second["covariances"], 4 * first["covariances"], rtol=1e-6)


@pytest.mark.quick("model")
def test_priors_share_a_program_and_not_an_answer():
    def log_density(posterior):
        function = lambda u, data: posterior.on(data).log_density(u)
        u = jax.jit(lambda key: posterior.unconstrain(posterior.initial(key)))(random.PRNGKey(1))
        arguments = u, posterior.arrays()
        wanted = jax.jit(posterior.log_density)(u)
        return float(posterior.compile("density", function, *arguments)[0](*arguments)), float(wanted)

    for posterior in (stick_breaking(), stick_breaking(3.0), stick_breaking(rate=7.0), stick_breaking(kappa=2.0)):
        found, wanted = log_density(posterior)
        assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.quick("model")
@pytest.mark.parametrize("number", [float, np.float64, np.asarray, jnp.asarray], ids=lambda f: f.__name__)
def test_what_is_closed_over_is_told_whatever_it_is(number):
    """A model of a user may close over anything: a number of Python is part of the program, an array an argument of it."""

    def answer(value):
        held = number(value)
        return Programs().compile("name", lambda x: x + held, jnp.zeros(()))[0](jnp.zeros(()))

    assert [float(answer(value)) for value in (1.0, 2.0, 1.0)] == [1.0, 2.0, 1.0]


@pytest.mark.quick("model")
def test_calls_back_into_python_are_not_shared():
    """Both programs have the same text."""

    def answer(value):
        back = lambda x: np.asarray(x + value)
        function = lambda x: jax.pure_callback(back, jax.ShapeDtypeStruct((), x.dtype), x)
        return Programs().compile("name", function, jnp.zeros(()))[0](jnp.zeros(()))

    assert [float(answer(value)) for value in (1.0, 2.0)] == [1.0, 2.0]


def test_programs_of_arguments_of_other_names_are_told_apart():
    """What is not used is not in a program's text: two models may differ in nothing else, and take other arguments."""
    for other in ("b", "c"):
        given = {"a": jnp.ones(2), other: jnp.zeros(3)}
        compiled, _ = Programs().compile(other, lambda p: 2 * p["a"], given)
        np.testing.assert_array_equal(compiled(given), [2, 2])
