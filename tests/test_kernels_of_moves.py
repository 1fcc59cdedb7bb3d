"""Moves between transitions of NUTS, each by itself: right as they are, and wrong with each planted bug.

Joint-distribution tests: parameters and points are drawn by numpy, a kernel moves the parameters given the points, and
nothing that is looked at may change its distribution (Geweke 2004; Gandy & Scott 2020).
"""

import jax.numpy as jnp
import numpy as np
from jax import random
from joint import (
    BASE,
    DIRICHLET,
    STICKS,
    Check,
    R,
    components,
    concentrations,
    kernel_tests,
    labels_of,
    points_of,
    stick_weights,
)

from dpgmm.methods import _active, _density, _moves, _pairs, _state, _weights
from dpgmm.methods._active import Components
from dpgmm.model.posterior import Arrays

K, ACTIVE, N = 4, 2, 3


def of_sticks(rng):
    a = concentrations(rng)
    return made(rng, a, np.log(np.maximum(stick_weights(rng, a, K)[1], 1e-300)), np.zeros(R))


def of_masses(rng):
    a = concentrations(rng)
    masses = np.log(np.maximum(rng.gamma(np.broadcast_to(a[:, None] / K, (R, K))), 1e-300))
    total = np.logaddexp.reduce(masses, axis=1)
    return made(rng, a, masses - total[:, None], total)


def made(rng, a, log_weights, total):
    means, trils = components(rng, K)
    points = points_of(rng, labels_of(rng, np.exp(log_weights), N), means, trils)
    return {
        "a": a,
        "log_weights": log_weights,
        "total": total,
        "means": means,
        "blocks": trils[:, :, None],
        "points": points,
    }


def state_of(s):
    mean, kappa = jnp.asarray(BASE.mean), jnp.asarray(BASE.kappa)
    return _state.MixtureState(Components(s["log_weights"], s["means"], s["blocks"]), s["total"], s["a"], mean, kappa)


def changed(state):
    log_weights, means, blocks = state.components
    return {
        "log_weights": log_weights,
        "means": means,
        "blocks": blocks,
        "total": state.log_total,
        "a": state.concentration,
    }


def points(s):
    return _active.points_of(Arrays(s["points"], jnp.ones(N)), diagonal=True)


def look(s):
    """Weights by place, and what ties components to the points and to their weights."""
    w, m, sd = np.exp(s["log_weights"]), s["means"][..., 0], s["blocks"][..., 0, 0, 0]
    x = s["points"][..., 0]
    density = (w[:, None] * np.exp(-0.5 * ((x[..., None] - m[:, None]) / sd[:, None]) ** 2) / sd[:, None]).sum(axis=-1)
    found = {f"weight {k}": w[:, k] for k in range(K)} | {f"mean {k}": m[:, k] for k in range(K)}
    found |= {f"log sd {k}": np.log(sd[:, k]) for k in (0, K - 1)}
    first = np.take_along_axis(m, w.argmax(axis=1)[:, None], axis=1)[:, 0]
    return found | {
        "a": s["a"],
        "total": s["total"],
        "largest weight": w.max(axis=1),
        "largest weight and a": w.max(axis=1) * s["a"],
        "likelihood": np.log(density).sum(axis=1),
        "mean of the largest from the points": first - x.mean(axis=1),
        "mean from the points": (w * m).sum(axis=1) - x.mean(axis=1),
        "spread of the means beside that of the points": np.log(m.std(axis=1)) - np.log(x.std(axis=1)),
    }


def smooth(prior):
    def transition(key, state, x):
        rest = _density.rest_of(state.components, ACTIVE, BASE, x)
        return _active.transition(
            key, state.components, state.log_total, state.concentration, BASE, x, rest, jnp.asarray(0.5),
            num=ACTIVE, rule=prior.weights, covariance="diagonal", max_tree_depth=2,
        )  # fmt: skip

    return transition


def ordered(prior, move):
    """A move of components in the order that it is made for; Dirichlet labels are uniform before and after."""

    def kernel(key, s):
        state = state_of(s)
        if prior.weights == "dirichlet":
            state, _ = _moves.reorder(random.fold_in(key, 1), state, prior)
        state = move(key, state, points(s))
        return changed(_moves.any_order(random.fold_in(key, 2), state, prior))

    return kernel


def nuts_step(prior):
    def move(key, state, x):
        components, total, _ = smooth(prior)(key, state, x)
        return state._replace(components=components, log_total=total)

    return ordered(prior, move)


def order_step(prior):
    return lambda key, s: changed(_moves.reorder(key, state_of(s), prior)[0])


def refresh_step(prior):
    def move(key, state, x):
        density = _density.log_density(state.components, BASE, x)
        return _moves.refresh(key, state, BASE, prior, x, density, ACTIVE)[0]

    return ordered(prior, move)


def split_step(prior):
    def move(key, state, x):
        density = _density.log_density(state.components, BASE, x)
        return _pairs.split_merge(key, state, BASE, prior._replace(covariance="diagonal"), x, density, K - 1, 2)[0]

    return ordered(prior, move)


def concentration_step(prior):
    def kernel(key, s):
        now = _weights.Weights(s["log_weights"], s["total"])
        weights, a = _weights.concentration_given_weights(key, now, s["a"], prior)
        return {"total": weights.log_total, "a": a}

    return kernel


# Bugs.


def frame_forgotten(f, on):
    return lambda *args: f(*args) * jnp.where(on, 0.0, 1.0)


def order_not_weighed(f, on):
    def order(key, weights, a, rule):
        new, accepted = f(key, weights, a, rule)
        return jnp.where(on, jnp.argsort(-weights), new), accepted

    return order


def concentration_of_all_sticks(f, on):
    return lambda key, log_last, m, prior: f(key, log_last, jnp.where(on, m + 1, m), prior)


def proposals_unweighed(f, on):
    return lambda *args: jnp.where(on, 0.0, f(*args))


def jacobian_of_weights_forgotten(f, on):
    return lambda folded, *rest: f(folded, *rest) + jnp.where(on, folded.sum(), 0.0)


def jacobian_of_factors_forgotten(f, on):
    return lambda blocks: jnp.where(on, 0.0, f(blocks))


def tail_overrated(f, on):
    return lambda *args: f(*args) * jnp.where(on, 3.0, 1.0)


def order_has_no_probability(f, on):
    return lambda *args: f(*args) * jnp.where(on, 0.0, 1.0)


def weights_too_dear(f, on):
    return lambda *args: f(*args) * jnp.where(on, 1.3, 1.0)


BUGS = {
    "NUTS": [(_active, "log_density_frame", frame_forgotten), (_weights, "log_density", weights_too_dear)],
    "order": [(_weights, "order", order_not_weighed)],
    "refresh": [
        (_weights.concentration, "given_sticks", concentration_of_all_sticks),
        (_density, "tail_density", tail_overrated),
    ],
    "split and merge": [
        (_pairs, "log_proposal", proposals_unweighed),
        (_weights, "log_density_weights", jacobian_of_weights_forgotten),
        (_pairs, "_of_factor", jacobian_of_factors_forgotten),
    ],
}

ORDER = [(_weights, "log_order", order_has_no_probability)]

test_a_kernel_leaves_the_joint_distribution_alone, test_a_planted_bug_changes_it = kernel_tests(
    {
        "NUTS on active components, sticks": Check(of_sticks, nuts_step(STICKS), look, BUGS["NUTS"], steps=3),
        "NUTS on active components, Dirichlet": Check(of_masses, nuts_step(DIRICHLET), look, ORDER, steps=3, slow=True),
        "size-biased order, sticks": Check(of_sticks, order_step(STICKS), look, BUGS["order"], steps=3),
        "tail anew, sticks": Check(of_sticks, refresh_step(STICKS), look, BUGS["refresh"], steps=5),
        "tail anew, Dirichlet": Check(of_masses, refresh_step(DIRICHLET), look, [], steps=5, slow=True),
        "split and merge, sticks": Check(
            of_sticks,
            split_step(STICKS),
            look,
            BUGS["split and merge"],
            steps=8,
            subtle=(jacobian_of_factors_forgotten,),
        ),
        "split and merge, Dirichlet": Check(of_masses, split_step(DIRICHLET), look, ORDER, steps=8, slow=True),
        "concentration, Dirichlet": Check(of_masses, concentration_step(DIRICHLET), look, [], steps=3, slow=True),
    }
)
