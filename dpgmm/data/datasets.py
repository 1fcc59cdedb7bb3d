"""Data sets that the field knows by heart, and the article's own."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from .dataset import Dataset
from .reading import read

FOLDER = Path(__file__).parent / "_datasets"

COUNTS = 2000, 10_000, 1000, 6000
LOCATIONS = -2.0, -5.0, 3.0, 8.0
SCALES = 1.1, 2.0, 1.0, 1.5
"""The truth of `four_gaussians`, component by component."""


def four_gaussians() -> Dataset:
    """The article's draw: N = 19,000, D = 1, from four Gaussians, component after component.

    Component i is ``scale_i * normal(key_i, (n_i,)) + location_i`` in float32, with keys ``split(PRNGKey(42), 4)``. The
    configuration of JAX makes no difference. True weights (2, 10, 1, 6)/19, locations (-2, -5, 3, 8) and scales
    (1.1, 2, 1, 1.5), as in `COUNTS`, `LOCATIONS` and `SCALES`.
    """
    with jax.threefry_partitionable(True):
        keys = jax.random.split(jax.random.key(42, impl="threefry2x32"), 4)
        draws = [
            scale * jax.random.normal(key, (count,), jnp.float32) + location
            for key, count, location, scale in zip(keys, COUNTS, LOCATIONS, SCALES, strict=True)
        ]
    return Dataset(np.concatenate(draws), name="four_gaussians")


def galaxies() -> Dataset:
    """Velocities of 82 galaxies in the Corona Borealis region, 1000 km/s: N = 82, D = 1.

    Source: Roeder (1990), JASA 85, 617-624; the 78th value as 26.960.
    """
    return read(FOLDER / "galaxies.csv")


def faithful() -> Dataset:
    """Duration of and waiting time before the next eruption of the Old Faithful geyser, minutes: N = 272, D = 2.

    Source: Azzalini & Bowman (1990), Applied Statistics 39, 357-365; R's `faithful`.
    """
    return read(FOLDER / "faithful.csv")


def thyroid() -> Dataset:
    """Five laboratory values (RT3U, T4, T3, TSH, DTSH) of 215 patients: N = 215, D = 5.

    Source: Coomans et al. (1983), Methods of Information in Medicine 22, 93-101; R's `mclust::thyroid`.
    The true labels are in `thyroid_diagnosis`.
    """
    return read(FOLDER / "thyroid.csv", columns=["RT3U", "T4", "T3", "TSH", "DTSH"])


def thyroid_diagnosis() -> np.ndarray:
    """Diagnosis of each patient of `thyroid`, ``(215,)`` strings: 150 Normal, 35 Hyper, 30 Hypo. Source as there."""
    return np.loadtxt(FOLDER / "thyroid.csv", delimiter=",", usecols=0, dtype=str, skiprows=1, quotechar='"')


REGISTRY: dict[str, Callable[[], Dataset]] = {f.__name__: f for f in (four_gaussians, galaxies, faithful, thyroid)}
