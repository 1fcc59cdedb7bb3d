import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpgmm import datasets
from dpgmm.data import Dataset

pytestmark = pytest.mark.quick("data")


def test_the_registry_knows_every_data_set_by_name():
    shapes = {"four_gaussians": (19_000, 1), "galaxies": (82, 1), "faithful": (272, 2), "thyroid": (215, 5)}
    made = {name: make() for name, make in datasets.REGISTRY.items()}
    assert {name: data.points.shape for name, data in made.items()} == shapes
    assert all(isinstance(data, Dataset) and data.name == name for name, data in made.items())
    assert all((data.weights == 1).all() for data in made.values())


def test_four_gaussians_is_the_draw_of_the_article():
    keys = jax.random.split(jax.random.PRNGKey(42), 4)
    parts = zip(keys, (2000, 10_000, 1000, 6000), (-2.0, -5.0, 3.0, 8.0), (1.1, 2.0, 1.0, 1.5), strict=True)
    drawn = [scale * jax.random.normal(key, (n,), jnp.float32) + loc for key, n, loc, scale in parts]
    points = datasets.four_gaussians().points[:, 0]
    np.testing.assert_array_equal(points, np.concatenate(drawn).astype(np.float64))
    np.testing.assert_array_equal(points, points.astype(np.float32))
    np.testing.assert_allclose(points[:3], [-1.9164819, -2.534977, -0.58064723], rtol=1e-6)
    np.testing.assert_allclose([points.mean(), points.std()], [-0.16270078, 6.0985157], rtol=1e-7)


@pytest.mark.parametrize(
    ("option", "value"),
    [("jax_enable_x64", False), ("jax_threefry_partitionable", False), ("jax_default_prng_impl", "rbg")],
)
def test_four_gaussians_does_not_depend_on_the_configuration(option, value):
    digest = lambda: hashlib.sha256(datasets.four_gaussians().points.tobytes()).hexdigest()
    expected, before = digest(), getattr(jax.config, option)
    jax.config.update(option, value)
    try:
        assert digest() == expected
        assert getattr(jax.config, option) == value
    finally:
        jax.config.update(option, before)


def test_galaxies_carry_the_corrected_78th_velocity():
    velocities = datasets.galaxies().points[:, 0]
    assert velocities[77] == 26.960
    assert (velocities.min(), velocities.max()) == (9.172, 34.279)
    assert (np.diff(velocities) >= 0).all()


def test_faithful_and_thyroid_have_their_published_moments():
    np.testing.assert_allclose(datasets.faithful().mean, [3.487783, 70.897059], atol=1e-6)
    assert (datasets.thyroid().points[0] == [107, 10.1, 2.2, 0.9, 2.7]).all()


def test_thyroid_has_a_diagnosis_for_every_patient():
    labels, counts = np.unique(datasets.thyroid_diagnosis(), return_counts=True)
    assert dict(zip(labels.tolist(), counts.tolist(), strict=True)) == {"Normal": 150, "Hyper": 35, "Hypo": 30}
    # Thyroxine (T4) is what the diagnosis is about: low, normal, high.
    t4 = datasets.thyroid().points[:, 1]
    low, normal, high = (t4[datasets.thyroid_diagnosis() == label].mean() for label in ("Hypo", "Normal", "Hyper"))
    assert low < normal - 3 < normal + 3 < high
