"""Eight virtual devices, and two processes on one machine, against one device. JAX wants to know before it starts."""

import json
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import dpgmm

PROBLEM = """
import contextlib, json, sys
import jax, jax.numpy as jnp, numpy as np
import dpgmm
from dpgmm.densities import passes

passes.PAIRS = 500  # Of 1,535 pairs: four chunks, of which eight devices have one or none.
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
points = np.concatenate([rng.normal(size=(150, 2)), rng.normal(size=(157, 2)) + 5])

def posterior():
    return dpgmm.load_model("stick_breaking")(points, truncation=5)

def numbers(tree):
    return [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(tree)]

def density(count):
    p = posterior()
    u = p.unconstrain(p.initial(jax.random.PRNGKey(0)))
    with contextlib.nullcontext() if count is None else dpgmm.devices(count):
        return numbers(jax.jit(lambda u, data: jax.value_and_grad(p.on(data).log_density)(u))(u, p.arrays()))
"""

SHORT = {
    "map": {"restarts": 2, "steps": 20, "snapshots": 2},
    "cavi": {"restarts": 1, "max_steps": 10, "moves": 0, "draws_per_restart": 5},
    "blocked_gibbs": {"chains": 1, "warmup": 5, "draws_per_chain": 10, "split_merges": 2, "pair_moves": 2},
}


def started(code, *arguments):
    script = PROBLEM + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def answer(process):
    out = process.communicate(timeout=600)[0]
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def test_eight_devices_have_the_density_and_gradient_of_one():
    one, eight, three = answer(
        started("""
        jax.config.update("jax_num_cpu_devices", 8)
        print(json.dumps([density(None), density(8), density(3)]))
        """)
    )
    assert one == eight == three  # To the last bit.
    assert all(np.isfinite(leaf).all() for leaf in one)


def test_two_processes_have_the_density_and_gradient_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = """
    address, index = sys.argv[1:]
    if address:
        jax.distributed.initialize(address, num_processes=2, process_id=int(index))
        assert jax.device_count() == 2 and jax.local_device_count() == 1
    print(json.dumps(density(2 if address else None)))
    """
    both = [started(code, address, str(index)) for index in range(2)]
    one = answer(started(code, "", "0"))
    assert [answer(process) for process in both] == [one, one]


@pytest.mark.long
@pytest.mark.parametrize("method", SHORT)
def test_eight_devices_draw_what_one_draws(method):
    """To rounding: whole programs are compiled anew for devices, and some of them round otherwise."""
    code = f"""
    jax.config.update("jax_num_cpu_devices", 8)
    draws = []
    for context in (contextlib.nullcontext(), dpgmm.devices(8)):
        with context:
            draws.append(dpgmm.fit(posterior(), {method!r}, **{SHORT[method]!r})["posterior"]["means"].values.tolist())
    print(json.dumps(draws))
    """
    one, eight = answer(started(code))
    np.testing.assert_allclose(eight, one, rtol=1e-12)


def test_more_devices_than_there_are():
    with pytest.raises(dpgmm.InputError, match="devices: there are 1, not 5"), dpgmm.devices(5):
        pass
    with pytest.raises(dpgmm.InputError, match="not 0"), dpgmm.devices(0):
        pass
