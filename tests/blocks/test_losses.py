"""The cited formulas against other libraries, closed forms and finite differences."""

import math

import pytest
import torch
from torch.nn import functional as F

from clkit.blocks.losses import distillation, sigmoid_targets, soft_cross_entropy


def logits(seed, b=5, k=4, scale=3.0):
    return scale * torch.randn(
        b, k, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(seed), device="cpu"
    )


def by_hand(student, teacher, temperature):
    """T^2 times the mean over images of -sum over classes p log q, one number at a time."""
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist()):
        p = [math.exp(v / temperature) for v in t]
        q = [math.exp(v / temperature) for v in s]
        total -= sum(a / sum(p) * math.log(b / sum(q)) for a, b in zip(p, q))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_distillation_against_a_plain_loop(temperature):
    student, teacher = logits(0), logits(1)
    expected = by_hand(student, teacher, temperature)
    assert distillation(student, teacher, temperature).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_distillation_is_kl_divergence_plus_the_teacher_s_entropy(temperature):
    student, teacher = logits(0), logits(1)
    p = F.softmax(teacher / temperature, 1)
    divergence = F.kl_div(F.log_softmax(student / temperature, 1), p, reduction="batchmean")
    entropy = torch.distributions.Categorical(probs=p).entropy().mean()
    torch.testing.assert_close(
        distillation(student, teacher, temperature), temperature**2 * (divergence + entropy)
    )


def test_distillation_from_a_certain_teacher_is_cross_entropy():
    y = torch.tensor([0, 2, 1, 3, 3], device="cpu")
    torch.testing.assert_close(
        distillation(logits(0), 1e3 * F.one_hot(y, 4).double(), 1.0), F.cross_entropy(logits(0), y)
    )


def test_distillation_is_smallest_where_student_and_teacher_agree():
    teacher = logits(1)
    least = distillation(teacher, teacher)
    torch.testing.assert_close(distillation(teacher + 7, teacher), least)  # a constant does not matter
    assert all(distillation(teacher + 0.1 * logits(s), teacher) > least for s in range(2, 7))
    student = teacher.clone().requires_grad_()
    distillation(student, teacher).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), atol=1e-12, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_gradient_against_finite_differences_and_the_closed_form(temperature):
    student, teacher = logits(0).requires_grad_(), logits(1)
    assert torch.autograd.gradcheck(lambda s: distillation(s, teacher, temperature), student)
    distillation(student, teacher, temperature).backward()
    gap = F.softmax(student.detach() / temperature, 1) - F.softmax(teacher / temperature, 1)
    torch.testing.assert_close(student.grad, temperature * gap / len(student))


def test_the_square_keeps_the_gradient_finite_as_the_temperature_grows():
    """At high temperatures it tends to the gradient of half the squared distance of centred logits / K."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    distillation(student, teacher, 1e4).backward()
    centred = [s - s.mean(1, keepdim=True) for s in (student.detach(), teacher)]
    limit = (centred[0] - centred[1]) / student.shape[1] / len(student)
    torch.testing.assert_close(student.grad, limit, rtol=1e-2, atol=1e-4)


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    distillation(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_the_default_temperature_is_that_of_the_papers():
    torch.testing.assert_close(
        distillation(logits(0), logits(1)), distillation(logits(0), logits(1), 2.0), rtol=0, atol=0
    )


def test_large_logits_give_finite_values():
    found = distillation(torch.tensor([[1e4, -1e4]], device="cpu"), torch.tensor([[-1e4, 1e4]], device="cpu"))
    assert found.isfinite() and found == pytest.approx(4 * 1e4)


@pytest.mark.parametrize("known", [2, 4])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_as_a_mean_over_classes(known, temperature):
    """By hand: append zeros to the teacher's probabilities, then average over images and classes."""
    student, teacher = logits(0), logits(1)[:, :known]
    p = F.pad(F.softmax(teacher / temperature, 1), (0, 4 - known))
    terms = [
        [a * math.log(b) for a, b in zip(*rows)]
        for rows in zip(p.tolist(), F.softmax(student / temperature, 1).tolist())
    ]
    expected = -(temperature**2) * sum(map(sum, terms)) / (5 * 4)
    found = distillation(student, teacher, temperature, reduction="mean")
    assert found.item() == pytest.approx(expected)
    torch.testing.assert_close(found * 4, distillation(student, teacher, temperature))


def test_soft_cross_entropy_against_a_plain_loop():
    student, target = logits(0), logits(1).softmax(1)
    slow = [
        -sum(t * math.log(p) for t, p in zip(row_t, row_p, strict=True))
        for row_t, row_p in zip(target.tolist(), student.softmax(1).tolist(), strict=True)
    ]
    torch.testing.assert_close(soft_cross_entropy(student, target), torch.tensor(slow, dtype=torch.float64))
    y = torch.tensor([1, 0, 3, 3, 2], device="cpu")
    torch.testing.assert_close(
        soft_cross_entropy(student, F.one_hot(y, 4)), F.cross_entropy(student, y, reduction="none")
    )


def test_sigmoid_targets_by_hand():
    old = torch.tensor([[0.0, 2.0], [-4.0, 6.0], [1.0, 1.0]], device="cpu")
    found = sigmoid_targets(torch.tensor([2, 3, 1], device="cpu"), 4, old)  # the last is an old image
    half = [[1 / (1 + math.exp(-v / 2)) for v in row] for row in old.tolist()]
    torch.testing.assert_close(
        found, torch.tensor([[*half[0], 1, 0], [*half[1], 0, 1], [*half[2], 0, 0]], device="cpu")
    )
    plain = sigmoid_targets(torch.tensor([2, 0], device="cpu"), 4, temperature=7.0)
    assert plain.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
