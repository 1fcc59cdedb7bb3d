"""The examples in the docstrings of the package's functions and classes run, and print what they say."""

import doctest
import inspect

import jax
import numpy as np
import pytest
from made_up import from_the_prior

import dpgmm

NAMES = [name for name in dpgmm.__all__ if not inspect.ismodule(getattr(dpgmm, name))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def names():
    """What the examples take for granted: every eighth galaxy, a model of them, and draws that no method made."""
    points = dpgmm.datasets.galaxies().points[::8]
    posterior = dpgmm.load_model("stick_breaking")(points, truncation=3)
    tree = from_the_prior(posterior, "gibbs", draws_per_chain=20, keep_allocations=True)
    return {"dpgmm": dpgmm, "jax": jax, "np": np, "posterior": posterior, "tree": tree}


def failures(name, thing, names):
    """How many examples of a docstring there are, and what those that fail print."""
    [found] = doctest.DocTestFinder(recurse=False).find(thing, name, module=False, globs=names)
    told = []
    ran = doctest.DocTestRunner(optionflags=FLAGS).run(found, out=told.append)
    return ran.attempted, "".join(told)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_every_public_name_runs(name, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attempted, told = failures(name, getattr(dpgmm, name), names)
    assert told == ""
    assert attempted > 0, f"{name}: its docstring has no example"


def test_a_wrong_example_is_noticed(names):
    def wrong():
        """
        >>> np.ones(2).shape
        (3,)
        """

    attempted, told = failures("wrong", wrong, names)
    assert attempted == 1
    assert "Got:\n    (2,)" in told
