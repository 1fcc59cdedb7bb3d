"""nutpie's NUTS with its own adaptation, on the model's own coordinates and density; needs the extra `peers`.

Like ``--option nuts.moves=none`` it has no moves of labels: see docs/own_method.md.
"""

import jax
import numpy as np
from jax import random
from jax.flatten_util import ravel_pytree

import dpgmm

try:
    import nutpie  # pyright: ignore[reportMissingImports]  # of the extra
    from nutpie.compiled_pyfunc import from_pyfunc  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise dpgmm.InputError("method nutpie_nuts needs nutpie: pip install dpgmm-suite[peers]") from error


def run(posterior, key, *, chains=4, warmup=1_000, draws_per_chain=1_000, target_accept=0.8, progress=None):
    """Draws of chains side by side, from dispersed starts; one report of progress, at the end.

    Options:
        `chains`: independent chains from dispersed starts.
        `warmup`: transitions of adaptation.
        `draws_per_chain`: draws that are kept of each chain.
        `target_accept`: mean acceptance probability that the step size is adapted to.
    """
    data, flat = posterior.arrays(), lambda key: ravel_pytree(posterior.unconstrain(posterior.initial(key)))[0]
    unravel = ravel_pytree(posterior.unconstrain(posterior.initial(key)))[1]
    density = lambda u, data: jax.value_and_grad(lambda u: posterior.on(data).log_density(unravel(u)))(u)
    compiled, seconds = posterior.compile("nutpie_nuts", density, flat(key), data)
    start, more = posterior.compile("nutpie_nuts, start", flat, key)

    def log_density(u):
        value, gradient = compiled(u, data)
        return float(value), np.array(gradient, float)

    size = flat(key).size
    model = from_pyfunc(
        size,
        lambda: log_density,
        lambda *_: lambda u: {"u": u},
        [np.dtype(float)],
        [(size,)],
        ["u"],
        make_initial_point_fn=lambda seed: np.array(start(random.fold_in(key, seed % 2**32)), float),
    )
    sampler = nutpie.sample(
        model,
        chains=chains,
        tune=warmup,
        draws=draws_per_chain,
        seed=int(key[-1]),
        target_accept=target_accept,
        save_warmup=False,
        progress_bar=False,
        blocking=False,
    )
    try:
        trace = sampler.wait()
    except BaseException:  # Ctrl-C: a trace cut short is none.
        sampler.cancel()
        raise
    one = lambda u: posterior.constrain(unravel(u))[0]
    every = lambda u: jax.lax.map(lambda chain: jax.lax.map(one, chain), u)
    u = jax.numpy.asarray(trace["posterior"]["u"].values)
    parameters = posterior.compile("nutpie_nuts, draws", every, u)[0](u)
    stats = {name: trace["sample_stats"][name].values for name in ("diverging", "n_steps")}
    if progress is not None:
        progress(1, 1, "done")
    return dpgmm.draws.build(posterior, parameters, sample_stats=stats, compile_seconds=seconds + more)


METHOD = dpgmm.methods.Method(
    "nutpie_nuts", run, quick={"chains": 2, "warmup": 100, "draws_per_chain": 100}, colour="#7F7F7F"
)
