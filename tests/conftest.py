"""Every test runs in float64, as the command line does; float32 is asked for by name where it is the subject."""

import gc
import itertools
import os
from pathlib import Path

import jax
import matplotlib as mpl
import pytest

from dpgmm.model.programs import SHARED

jax.config.update("jax_enable_x64", True)
CACHE = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", Path(__file__).parents[1] / ".jax_cache")).absolute()
# The same for the processes that tests start, wherever they stand.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
mpl.use("Agg")


def pytest_configure(config):
    """Less optimisation where tests are short: compiling is most of their time, and takes a third as long.

    Neither LLVM's optimisation nor XLA's emitters of fused kernels, whose code takes LLVM longest. What is computed is the
    same up to rounding. Slow tests run long enough to have it back.
    """
    if "slow" not in config.option.markexpr.replace("not slow", ""):
        fast = "--xla_backend_optimization_level=0"
        # A flag that XLA does not know ends the process: jax 0.12 has these emitters and no such choice.
        fast += " --xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 12) else ""
        os.environ["XLA_FLAGS"] = f"{fast} {os.environ.get('XLA_FLAGS', '')}"


def pytest_collection_modifyitems(config, items):
    """Of a quick test that is slow under some parameters, those stay out."""
    if config.option.markexpr == "quick":
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


FILES = 4
finished = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Compiled programs of one file are of little use to the next, and a worker that keeps them all takes gigabytes.

    Small ones are of some, and forgetting takes seconds: so it is done after every few files.
    """
    yield
    if next(finished) % FILES == 0:
        SHARED.forget()
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def file(tmp_path):
    """``file(content, name)`` writes a file, of bytes or text, and returns its path."""

    def write(content, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
