"""blackjax's NUTS with its window adaptation, on the model's own coordinates and density; needs the extra `peers`.

Like ``--option nuts.moves=none`` it has no moves of labels: see docs/own_method.md.
"""

from typing import Any

import jax
from jax import random

import dpgmm

try:
    import blackjax as installed  # pyright: ignore[reportMissingImports]  # of the extra
except ImportError as error:
    raise dpgmm.InputError("method blackjax_nuts needs blackjax: pip install dpgmm-suite[peers]") from error

# Unchecked: it annotates states and information as those of any sampler, which have none of the fields read here.
blackjax: Any = installed

CHUNK = 25
"""Draws between two looks at the progress bar and at Ctrl-C."""


def run(posterior, key, *, chains=4, warmup=1_000, draws_per_chain=1_000, target_accept=0.8, progress=None):
    """Draws of chains one after the other, from dispersed starts.

    Options:
        `chains`: independent chains from dispersed starts.
        `warmup`: transitions of adaptation.
        `draws_per_chain`: draws that are kept of each chain.
        `target_accept`: mean acceptance probability that the step size is adapted to.
    """

    def adapted(key, data):
        key_start, key_warm = random.split(key)
        log_density = posterior.on(data).log_density
        start = posterior.unconstrain(posterior.initial(key_start))
        warm = blackjax.window_adaptation(blackjax.nuts, log_density, target_acceptance_rate=target_accept)
        (state, tuned), _ = warm.run(key_warm, start, warmup)
        return state, {name: tuned[name] for name in ("step_size", "inverse_mass_matrix")}

    def chunk(keys, state, tuned, data):
        step = blackjax.nuts(posterior.on(data).log_density, **tuned).step

        def draw(state, key):
            state, info = step(key, state)
            stats = {"diverging": info.is_divergent, "n_steps": info.num_integration_steps}
            return state, (posterior.constrain(state.position)[0], stats | {"acceptance_rate": info.acceptance_rate})

        return jax.lax.scan(draw, state, keys)

    data, keys, kept = posterior.arrays(), random.split(key, (chains, 2)), []
    adapt, seconds = posterior.compile(("blackjax_nuts", warmup, target_accept), adapted, keys[0, 0], data)
    total = -(-draws_per_chain // CHUNK) * CHUNK
    for index, (key_warm, key_draws) in enumerate(keys):
        state, tuned = jax.block_until_ready(adapt(key_warm, data))
        draw_keys, some = random.split(key_draws, (total // CHUNK, CHUNK)), []
        sample, more = posterior.compile("blackjax_nuts, draws", chunk, draw_keys[0], state, tuned, data)
        seconds += more
        for done, of_chunk in enumerate(draw_keys):
            state, out = sample(of_chunk, state, tuned, data)
            some.append(jax.device_get(out))
            if progress is not None:
                part = (warmup + (done + 1) * CHUNK) / (warmup + total)
                progress(round((index + part) * 1_000), chains * 1_000, f"chain {index + 1} sampling")
        kept.append(jax.tree.map(lambda *leaves: jax.numpy.concatenate(leaves)[:draws_per_chain], *some))
    parameters, stats = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *kept)
    return dpgmm.draws.build(posterior, parameters, sample_stats=stats, compile_seconds=seconds)


METHOD = dpgmm.methods.Method(
    "blackjax_nuts", run, quick={"chains": 2, "warmup": 100, "draws_per_chain": 100}, colour="#8C564B"
)
