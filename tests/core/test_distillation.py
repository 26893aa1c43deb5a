import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from rectilinear.core import prediction
from rectilinear.core.distillation import kl, kl_top_k, stream_errors, top_k


def logits(n=37, v=19, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, v, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    student, teacher = (x.to(dtype) for x in made)
    return student.requires_grad_(), teacher


def direct(student, teacher, temperature):
    log_q, log_p = log_softmax(student / temperature, 1), log_softmax(teacher / temperature, 1)
    return kl_div(log_q, log_p, reduction="none", log_target=True).sum(1) * temperature**2


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(prediction, "CHUNK", 5 * 19)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_by_chunks_is_the_direct_formula_with_its_gradient(small_chunks, temperature):
    student, teacher = logits()
    weights = torch.rand(len(student), dtype=torch.float64)
    (wanted,) = torch.autograd.grad((direct(student, teacher, temperature) * weights).sum(), student)
    found = kl(student, teacher, temperature)
    (gradient,) = torch.autograd.grad((found * weights).sum(), student)
    torch.testing.assert_close(found, direct(student, teacher, temperature))
    torch.testing.assert_close(gradient, wanted)


def test_gradcheck(small_chunks):
    student, teacher = logits(n=7)
    assert torch.autograd.gradcheck(lambda s: kl(s, teacher, 1.5), (student,))
    assert torch.autograd.gradcheck(lambda s: kl_top_k(s, top_k(teacher, 4, 1.5), 1.5), (student,))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_top_k_of_the_whole_vocabulary_is_kl(small_chunks, temperature):
    student, teacher = logits()
    whole = top_k(teacher, 99, temperature)
    assert whole.values.shape == (37, 19) and bool(torch.isinf(whole.rest).all())
    found, wanted = kl_top_k(student, whole, temperature), kl(student, teacher, temperature)
    torch.testing.assert_close(found, wanted)
    a, b = (torch.autograd.grad(x.sum(), student)[0] for x in (found, wanted))
    torch.testing.assert_close(a, b)


def test_top_k_is_the_divergence_of_the_buckets(small_chunks):
    student, teacher = logits()
    kept = top_k(teacher, 4)
    p, q = teacher.softmax(1), student.softmax(1)
    buckets = []
    for x in (p, q):
        chosen = x.gather(1, kept.indices)
        buckets.append(torch.cat([chosen, 1 - chosen.sum(1, keepdim=True)], 1))
    wanted = (buckets[0] * (buckets[0] / buckets[1]).log()).sum(1)
    found = kl_top_k(student, kept)
    torch.testing.assert_close(found, wanted)
    assert bool((found <= kl(student, teacher) + 1e-12).all())
    a, b = (torch.autograd.grad(x.sum(), student)[0] for x in (found, wanted))
    torch.testing.assert_close(a, b)


def test_the_bucket_is_exact_where_one_minus_the_rest_is_nothing():
    teacher = torch.tensor([[40.0, 0.0, 0.0]])
    naive = torch.log1p(-teacher.softmax(1)[:, 0])
    assert torch.isinf(naive)
    torch.testing.assert_close(top_k(teacher, 1).rest, torch.tensor([-40.0 + 0.6931472]))


def test_ruled_out_tokens_cost_nothing():
    student, teacher = logits(dtype=torch.float32)
    with torch.no_grad():
        student[:, 3] = teacher[:, 3] = -torch.inf
    for found in (kl(student, teacher), kl_top_k(student, top_k(teacher, 19))):
        (gradient,) = torch.autograd.grad(found.sum(), student)
        assert bool(torch.isfinite(found).all()) and bool((gradient[:, 3] == 0).all())


def test_half_precision_is_summed_in_single_and_given_back_in_half():
    student, teacher = logits(dtype=torch.bfloat16)
    found = kl(student, teacher)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert found.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    torch.testing.assert_close(found, direct(student.float(), teacher.float(), 1.0))


def test_the_teacher_gets_no_gradient():
    student, teacher = logits()
    teacher.requires_grad_()
    kl(student, teacher).sum().backward()
    assert student.grad is not None and teacher.grad is None


def test_stream_errors_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(2, 3, 4, generator=generator) for _ in range(5)]
    teacher = [torch.randn(2, 3, 4, generator=generator) for _ in range(5)]
    found = stream_errors(student, teacher)
    for i in range(2):
        for j in range(3):
            total = sum(float((student[n][i, j, k] - teacher[n][i, j, k]) ** 2) for n in range(5) for k in range(4))
            assert float(found[i, j]) == pytest.approx(total / 20, rel=1e-5)
