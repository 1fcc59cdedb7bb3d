"""Every test runs in float64, as the command line does; float32 is asked for by name where it is the subject."""

import gc
import os

import jax
import matplotlib as mpl
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
mpl.use("Agg")


def pytest_configure(config):
    """Less of LLVM's optimisation where tests are short: compiling is most of their time, and takes half as long.

    What is computed is the same up to rounding. Slow tests run long enough to have it back.
    """
    if "slow" not in config.option.markexpr.replace("not slow", ""):
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"


def pytest_collection_modifyitems(config, items):
    """Of a quick test that is slow under some parameters, those stay out."""
    if config.option.markexpr == "quick":
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Compiled programs of one file are of no use to the next, and a worker that keeps them all takes gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()
