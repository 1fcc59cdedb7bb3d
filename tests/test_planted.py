"""Of wrong changes to the library, nine in ten at least are noticed by the fast tests."""

import planted
import pytest


def test_every_planted_change_is_one_to_the_code_as_it_is():
    """Its old text occurs once, and its tests are there."""
    for change in planted.CHANGES:
        assert (planted.ROOT / change.file).read_text().count(change.old) == 1, change
        assert change.new != change.old
        assert all((planted.ROOT / word).is_file() for word in change.tests.split() if word.startswith("tests/")), (
            change
        )


@pytest.mark.slow
def test_wrong_changes_are_noticed():
    assert planted.main() >= 0.9
