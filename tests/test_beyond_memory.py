"""Points in a mapped file stay there: methods take no memory that grows with them but eight bytes a point of weights."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems do not limit what a process may hold"
)
SIZE, DIM = 24_000_000, 2
SCRIPT = textwrap.dedent("""
    import resource, sys
    import jax
    import numpy as np
    import dpgmm
    from dpgmm.data.reading import read

    jax.config.update("jax_enable_x64", True)
    path, how, allowed = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def fitted(data):
        posterior = dpgmm.load_model("stick_breaking")(data, truncation=3)
        return dpgmm.fit(posterior, how, **OPTIONS[how])

    OPTIONS = {
        "map": {"restarts": 1, "steps": 20, "snapshots": 2},
        "cavi": {"restarts": 1, "max_steps": 4, "moves": 0, "draws_per_restart": 1},
        "svi": {"restarts": 1, "max_steps": 20, "candidates": 1, "draws_per_restart": 1},
        "copy": {},
    }
    rng = np.random.default_rng(0)
    if how != "copy":
        fitted(dpgmm.Dataset(rng.normal(size=(100_000, 2))))  # Whatever else a first fit takes is there now.
    data = read(path)
    [held] = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")]
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * held + allowed, -1))
    if how == "copy":
        np.array(data.points)
    else:
        print(fitted(data)["sample_stats"]["log_joint"].values.ravel()[0])
""")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of points, the last of which are zeros and take no room on disk."""
    path = tmp_path_factory.mktemp("large") / "points.npy"
    points = np.lib.format.open_memmap(path, "w+", np.float64, (SIZE, DIM))
    points[:100_000] = np.random.default_rng(1).normal(size=(100_000, DIM))
    points.flush()
    return path


def run(path, how):
    allowed = 8 * SIZE + 4 * SIZE * DIM if how != "copy" else 4 * SIZE * DIM  # Weights, and half of what points take.
    command = [sys.executable, "-c", SCRIPT, str(path), how, str(allowed)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("map", marks=pytest.mark.long),
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("svi", "cavi")),
    ],
)
def test_methods_find_points_in_a_file_larger_than_the_memory_that_they_may_take(large, how):
    done = run(large, how)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert np.isfinite(float(done.stdout.splitlines()[-1]))


@pytest.mark.long
def test_the_limit_does_not_let_a_copy_pass(large):
    done = run(large, "copy")
    assert done.returncode != 0
    assert "MemoryError" in done.stderr
