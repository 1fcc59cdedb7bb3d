"""One container of mixtures: components in another order are the same mixtures, whatever form their covariances have."""

import numpy as np
import pytest

from dpgmm.draws.components import Components, along

SHAPE, K, D = (2, 3), 4, 2
FORMS = {"full": (K, D, D), "tied": (1, D, D), "diagonal": (K, D), "spherical": (K,)}


def components(form, seed=0):
    rng = np.random.default_rng(seed)
    covariances = rng.uniform(1, 2, (*SHAPE, *FORMS[form]))
    return Components(rng.dirichlet(np.ones(K), SHAPE), rng.normal(size=(*SHAPE, K, D)), covariances)


@pytest.mark.quick("draws")
@pytest.mark.parametrize("form", FORMS)
def test_sorting_forgets_labels(form):
    drawn = components(form)
    names = np.random.default_rng(1).permuted(np.tile(np.arange(K), (*SHAPE, 1)), axis=-1)
    for one, other in zip(drawn.sorted(), drawn.take(names).sorted(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.diff(drawn.sorted().weights) > 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_each_component_keeps_what_is_its_own(form):
    """One by one, and in matrices, which do not know how they were stored."""
    drawn, order = components(form), np.array([[[2, 0]]] * 2).repeat(3, axis=1)
    taken, full = drawn.take(order).full(), drawn.full()
    for k, source in enumerate((2, 0)):
        np.testing.assert_array_equal(taken.means[..., k, :], drawn.means[..., source, :])
        np.testing.assert_array_equal(taken.covariances[..., k, :, :], full.covariances[..., source, :, :])
    assert taken.covariances.shape == (*SHAPE, 2, D, D)


@pytest.mark.parametrize("form", FORMS)
def test_leading_axes(form):
    drawn = components(form)
    flat = drawn.flatten()
    assert flat.weights.shape == (6, K)
    for one, other in zip(flat.at(slice(3, 6)), drawn.at(1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_entry_for_all_stays():
    order = np.array([[1, 0], [0, 1]])
    np.testing.assert_array_equal(along(np.array([[[5.0]], [[6.0]]]), order), [[[5.0]], [[6.0]]])
    np.testing.assert_array_equal(along(np.array([[1, 2], [3, 4]]), order), [[2, 1], [3, 4]])
