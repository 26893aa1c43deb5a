"""Of every family: the logits at the positions asked for, pads on the right without effect, caches that are read."""

import pytest
import torch
from families import ENCODERS, FAMILIES, VOCAB

import rectilinear
from rectilinear.data.windows import Window
from rectilinear.models.logits import check_causal, greedy_step, next_token_logits
from rectilinear.ops.predict import predict
from rectilinear.ops.speed import cache_bytes

IDS = torch.randint(3, VOCAB, (3, 24), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
def test_nats_are_those_of_each_window_alone(name):
    model = FAMILIES[name]()
    check_causal(model)
    windows = [
        Window(i, ids[:length].numpy(), first, None)
        for i, (ids, length, first) in enumerate(zip(IDS, (24, 9, 17), (1, 8, 3), strict=True))
    ]
    (sums,) = predict([model], windows, reference=False, batch_tokens=200, advance=lambda *_: None)
    for window, nats in zip(windows, sums.nats.tolist(), strict=True):
        ids = torch.from_numpy(window.ids)
        with torch.inference_mode():
            p = model(ids[None]).logits[0].double().log_softmax(-1)
            part = next_token_logits(model, ids[None], None, 5)
            torch.testing.assert_close(part[0].double().log_softmax(-1), p[5:], rtol=1e-4, atol=1e-4)
        targets = ids[window.first :]
        expected = -float(p[window.first - 1 : -1].gather(1, targets[:, None]).sum())
        assert nats == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_steps_are_what_generate_makes(name):
    model = FAMILIES[name]()
    ids = IDS[:1, :8]
    with torch.inference_mode():
        token, cache = greedy_step(model, ids)
        assert cache_bytes(cache) >= 4 * 8 * 2 * 8 * 4  # four layers, eight tokens, keys and values, one head at least
        made = [int(token)]
        for _ in range(5):
            token, cache = greedy_step(model, token, cache)
            made.append(int(token))
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert made == model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, 8:].tolist()


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_refused(name):
    with pytest.raises(rectilinear.ModelError, match="as encoders do"):
        check_causal(ENCODERS[name]())
