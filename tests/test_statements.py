"""A model file whose statements of one prior differ is refused in a line, before anything runs."""

from pathlib import Path

import numpy as np
import pytest

from dpgmm import Dataset, InputError, load_model

DATA = Dataset(np.random.default_rng(0).normal(size=(9, 1)))
MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture
def changed(tmp_path):
    """A function that copies a model of ours with a change, and loads the copy."""

    def load(name, *changes, **options):
        text = (MODELS / f"{name}.py").read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "copy.py"
        path.write_text(text)
        return load_model(str(path))(DATA, truncation=4, **options)

    return load


@pytest.mark.quick("model")
@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_copies_of_our_models_agree_with_themselves(changed, covariance):
    for name in ("stick_breaking", "symmetric_dirichlet"):
        changed(name, covariance=covariance)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "stick_breaking",
            "return of_concentration + of_sticks",
            "return 1.01 * of_concentration + of_sticks",
            r"copy.py: the prior of model stick_breaking is stated in two ways that differ: .*, (prior_program|conjugate)",
        ),
        (
            "stick_breaking",
            "StickLogits(concentration, truncation - 1)))",
            "StickLogits(2 * concentration, truncation - 1)))",
            "two ways that differ: log_prior gives .*, prior_program",
        ),
        (
            "stick_breaking",
            'Conjugate(base, prior, "sticks"',
            'Conjugate(base, Concentration(shape + 1, rate), "sticks"',
            "two ways that differ: log_prior gives .*, conjugate",
        ),
        (
            "symmetric_dirichlet",
            'Conjugate(base, prior, "dirichlet"',
            'Conjugate(base._replace(kappa=2 * base.kappa), prior, "dirichlet"',
            "two ways that differ: log_prior gives .*, conjugate",
        ),
        (
            "stick_breaking",
            "return of_concentration + of_sticks",
            "return jnp.nan * of_concentration + of_sticks",
            r"copy.py: log_prior of model stick_breaking is nan beside initial\(key\)",
        ),
        (
            "stick_breaking",
            "return of_concentration + of_sticks",
            "return jnp.ones(3) * of_concentration + of_sticks",
            r"copy.py: the log joint density has shape \(3,\); log_prior must return one number",
        ),
    ],
)
def test_a_prior_that_is_changed_in_one_place_is_refused(changed, name, old, new, message):
    with pytest.raises(InputError, match=message) as caught:
        changed(name, (old, new))
    assert "\n" not in str(caught.value)
