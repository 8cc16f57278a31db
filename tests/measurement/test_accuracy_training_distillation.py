from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from hadas.measurement.accuracy.distillation import (
    adaptive_alpha_divergence,
    alpha_divergence,
    distillation_loss,
)
from hadas.measurement.accuracy.recipes import SupernetRecipe

ALPHAS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
NO_CLIP = 1e9


def _logits(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def _random(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("alpha", "clip", "expected"),
    [
        (-1.0, NO_CLIP, 0.18),  # (0.64 / 0.5 + 0.04 / 0.5 - 1) / 2
        (0.0, NO_CLIP, 0.8 * math.log(1.6) + 0.2 * math.log(0.4)),  # KL(q || p)
        (0.5, NO_CLIP, 4.0 * (1.0 - math.sqrt(0.4) - math.sqrt(0.1))),
        (1.0, NO_CLIP, 0.5 * math.log(0.625) + 0.5 * math.log(2.5)),  # KL(p || q)
        (2.0, NO_CLIP, 0.28125),  # (0.25 / 0.8 + 0.25 / 0.2 - 1) / 2
        (1.0, 2.0, 0.5 * math.log(0.625) + 0.5 * math.log(2.5)),  # nothing to clip
        (2.0, 2.0, (0.8 * (0.625**2 - 1 + 0.75) + 0.2 * (4 - 1 - 2)) / 2),
        (-1.0, 1.25, 0.8 * (1.25 - 2 + 0.8) / 2 + 0.2 * (0.4 - 2 + 2.5) / 2),
    ],
)
def test_values_by_hand(alpha: float, clip: float, expected: float) -> None:
    """Teacher (0.5, 0.5), student (0.8, 0.2): the ratios are 0.625 and 2.5."""
    value = alpha_divergence(_logits((0.8, 0.2)), _logits((0.5, 0.5)), alpha=alpha, clip=clip)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 999), scale=st.sampled_from([0.1, 3.0, 300.0]), alpha=st.sampled_from(ALPHAS))
@settings(max_examples=40, deadline=None)
def test_never_negative_never_infinite_and_zero_for_equal_distributions(
    seed: int, scale: float, alpha: float
) -> None:
    student, teacher = _random(seed, scale).float().requires_grad_(), _random(seed + 1000, scale).float()
    value = alpha_divergence(student, teacher, alpha=alpha, clip=5.0)
    assert (value >= 0).all()
    assert torch.isfinite(value).all()
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert torch.isfinite(gradient).all()
    same = alpha_divergence(student, student.detach() + 1.0, alpha=alpha, clip=5.0)
    assert same.abs().max() < 1e-5


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_is_that_of_the_value_where_nothing_is_clipped(alpha: float) -> None:
    student, teacher = _random(0).requires_grad_(), _random(1)
    assert torch.autograd.gradcheck(
        lambda s: alpha_divergence(s, teacher, alpha=alpha, clip=NO_CLIP), student
    )


def test_exponents_near_one_and_zero_approach_the_two_kl_divergences() -> None:
    student, teacher = _random(0), _random(1)
    log_q, log_p = functional.log_softmax(student, dim=1), functional.log_softmax(teacher, dim=1)
    forward = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    reverse = (log_q.exp() * (log_q - log_p)).sum(dim=1)
    for exact, near, expected in ((1.0, 1.0 + 1e-4, forward), (0.0, 1e-4, reverse)):
        torch.testing.assert_close(alpha_divergence(student, teacher, alpha=exact, clip=NO_CLIP), expected)
        torch.testing.assert_close(
            alpha_divergence(student, teacher, alpha=near, clip=NO_CLIP), expected, rtol=1e-3, atol=0.0
        )


def test_a_class_that_the_student_misses_pulls_as_in_kl_whatever_the_clip() -> None:
    """The gradient of KL(p || q), which the exponent 1 stands for, is q - p: bounded without any clip."""
    student = _logits((0.003, 0.987, 0.01)).requires_grad_()
    teacher = _logits((0.9, 0.09, 0.01))
    value = alpha_divergence(student, teacher, alpha=1.0, clip=5.0)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    torch.testing.assert_close(gradient, (student.exp() - teacher.exp()).detach())


@pytest.mark.parametrize("alpha", [-1.0, 2.0])
def test_a_clipped_class_still_pulls_towards_the_teacher(alpha: float) -> None:
    """The student misses class 0 by a factor of 300 and is sure of class 1."""
    student = _logits((0.003, 0.987, 0.01)).requires_grad_()
    teacher = _logits((0.9, 0.09, 0.01))
    sizes = []
    for clip in (5.0, 20.0):
        value = alpha_divergence(student, teacher, alpha=alpha, clip=clip)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert gradient[0, 0] < 0 < gradient[0, 1]
        sizes.append(gradient.norm().item())
    assert sizes[0] < sizes[1]


def test_the_larger_divergence_is_taken_image_by_image() -> None:
    student = _logits((0.34, 0.33, 0.33), (0.98, 0.01, 0.01))
    teacher = _logits((0.98, 0.01, 0.01), (0.34, 0.33, 0.33))
    low, high = (alpha_divergence(student, teacher, alpha=alpha, clip=50.0) for alpha in (-1.0, 1.0))
    assert low[0] > high[0]  # two classes rated far above the teacher's
    assert low[1] < high[1]
    both = adaptive_alpha_divergence(student, teacher, alpha_min=-1.0, alpha_max=1.0, clip=50.0)
    assert both.tolist() == [low[0].item(), high[1].item()]
    recipe = SupernetRecipe(distillation="alpha", alpha_clip=50.0)
    assert distillation_loss(teacher, recipe)(student).item() == pytest.approx(both.mean().item())
