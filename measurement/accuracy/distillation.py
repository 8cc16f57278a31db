"""What a student learns from the largest backbone's output: KL, or the adaptive alpha-divergence."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .recipes import SupernetRecipe

DistillationLoss = Callable[[Tensor], Tensor]
"""From a student's (n, C) logits to a scalar, the mean over images."""


def distillation_loss(teacher_logits: Tensor, recipe: SupernetRecipe) -> DistillationLoss:
    """The loss of all students of one step.

    Args:
        teacher_logits: (n, C), detached.
        recipe: its ``distillation`` chooses; for ``kl`` the value is the cross-entropy with the
            teacher, which has the KL divergence's gradient.
    """
    if recipe.distillation == "kl":
        teacher = functional.softmax(teacher_logits, dim=1)
        return lambda student_logits: functional.cross_entropy(student_logits, teacher)
    return lambda student_logits: adaptive_alpha_divergence(
        student_logits,
        teacher_logits,
        alpha_min=recipe.alpha_min,
        alpha_max=recipe.alpha_max,
        clip=recipe.alpha_clip,
    ).mean()


def adaptive_alpha_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, alpha_min: float, alpha_max: float, clip: float
) -> Tensor:
    """The larger of two alpha-divergences, image by image (AlphaNet: Wang et al., ICML 2021).

    A negative exponent punishes classes that the student rates far above the teacher, a positive one
    classes that it rates far below.  The larger is taken per image, not per batch: which fault weighs
    more differs between images, and a mean over images stays the same however a batch is divided
    among processes.

    Args:
        student_logits, teacher_logits: (n, C); no gradient flows into the teacher.
        alpha_min, alpha_max: the two exponents.
        clip: bound, at least 1, on the ratio of probabilities, see :func:`alpha_divergence`.  With
            exponents -1 and 1 it acts on the first alone.

    Returns:
        (n,) divergences, differentiable in ``student_logits``.
    """
    low, high = (
        alpha_divergence(student_logits, teacher_logits, alpha=alpha, clip=clip)
        for alpha in (alpha_min, alpha_max)
    )
    return torch.where(low > high, low, high)


def alpha_divergence(student_logits: Tensor, teacher_logits: Tensor, *, alpha: float, clip: float) -> Tensor:
    """Alpha-divergence of the student's distribution q from the teacher's p, per image.

    With the ratio t = p / q: D = sum_i q_i f(t_i), where f(t) = (t^a - 1 - a (t - 1)) / (a (a - 1)),
    t log t - t + 1 for a = 1 (then D is KL(p || q)) and t - 1 - log t for a = 0 (KL(q || p)).  The
    term linear in t adds nothing, for p and q both sum to 1, but keeps every summand at least 0,
    also where the ratio is clipped.  The gradient is -sum_i q_i rho(t_i) d log q_i with
    rho(t) = t^a / a, or log t for a = 0.

    The ratio is clipped where q rho(t) would explode, and nowhere else: t at ``clip`` from above for
    a > 1, at 1 / ``clip`` from below for a <= 0.  In between q rho(t) = q^(1-a) p^a / a is bounded by
    itself (p for a = 1), and a clip would take the pull from just those classes that the student
    misses most.  The clipped ratio enters rho as a constant, so a clipped class still pulls the
    student towards the teacher, with a bounded force; the plain gradient of the clipped value would
    push the wrong way.

    Args:
        student_logits, teacher_logits: (n, C).
        alpha: the exponent a.
        clip: at least 1.

    Returns:
        (n,) >= 0, and 0 for equal distributions.
    """
    log_q = functional.log_softmax(student_logits, dim=1)
    with torch.no_grad():
        log_t = functional.log_softmax(teacher_logits, dim=1) - log_q
        bound = math.log(clip)
        if alpha > 1:
            log_t = log_t.clamp_max(bound)
        if alpha <= 0:
            log_t = log_t.clamp_min(-bound)
        # Products with q are exponentials of sums: where q vanishes, t alone would overflow.
        q, q_t = log_q.exp(), (log_q + log_t).exp()
        if alpha == 1:
            summand, q_rho = q_t * log_t - q_t + q, q_t
        elif alpha == 0:
            summand, q_rho = q_t - q - q * log_t, q * log_t
        else:
            q_power = (log_q + alpha * log_t).exp()
            summand = (q_power - q - alpha * (q_t - q)) / (alpha * (alpha - 1.0))
            q_rho = q_power / alpha
        value = summand.clamp_min(0.0).sum(dim=1)  # below 0 by rounding alone
    pull = -(q_rho * log_q).sum(dim=1)
    return value + (pull - pull.detach())
