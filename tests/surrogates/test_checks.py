"""How targets are scaled: what a few of them say of the others, and what many do."""

import numpy as np
import pytest

from hadas.surrogates.checks import target_scaling


@pytest.mark.parametrize("apart", [1e-12, 1e-6, 1e-2])
def test_two_close_values_say_little_of_others(apart):
    """Two values that happen to agree are no reason to be sure to a millionth, wherever they lie."""
    _, scale, _ = target_scaling(np.array([3.0, 3.0 + apart]))
    assert 0.4 < scale < 0.6


def test_many_values_have_their_own_scale():
    """From a few dozen rows on even a spread of a hundredth is taken as it is."""
    y = 0.01 * np.random.default_rng(0).standard_normal(60)
    mean, scale, varies = target_scaling(y)
    assert varies
    assert mean == pytest.approx(y.mean())
    assert scale == pytest.approx(y.std(), rel=0.01)
