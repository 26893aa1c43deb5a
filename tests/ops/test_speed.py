import sys
import time

import pytest
import torch

import rectilinear
import tiny
from rectilinear.models.logits import greedy_step
from rectilinear.ops import evaluate, speed


def test_cache_is_measured_and_not_guessed():
    # Grouped queries: 2 of 4 heads are kept, of 8 numbers each, keys and values, float32, in 3 layers.
    model = tiny.llama(num_key_value_heads=2)
    (found,) = speed.measure_speed([model], [torch.ones(1, 10, dtype=torch.long)], new_tokens=3, repeats=2)
    assert found.cache_bytes_per_token == 2 * 8 * 2 * 4 * 3
    assert found.prompt == 10 and found.new_tokens == 3 and found.repeats == 2
    assert found.prefill > 0 and found.generate > 0
    assert found.peak_scope == "process" and found.peak_bytes == speed.process_peak() > 100e6


def test_models_are_timed_in_turn_and_the_first_round_does_not_count(monkeypatch):
    order = []

    def step(model, ids, cache=None):
        order.append((model.name, ids.shape[1]))
        time.sleep(0.2 if len(order) <= 4 else 0.01)  # slow while it warms up
        return torch.ones(1, 1, dtype=torch.long), cache

    monkeypatch.setattr(speed, "greedy_step", step)
    models = [tiny.llama(), tiny.llama()]
    models[0].name, models[1].name = "a", "b"
    found = speed.measure_speed(models, [torch.ones(1, 5, dtype=torch.long)] * 2, new_tokens=1, repeats=3)
    assert order == [("a", 5), ("a", 1), ("b", 5), ("b", 1)] * 4
    assert all(f.prefill > 5 / 0.1 and f.generate > 1 / 0.1 for f in found)
    assert found[0].cache_bytes_per_token is None


def test_steps_with_a_cache_are_what_generate_makes():
    model = tiny.llama()
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        token, cache = greedy_step(model, ids)
        made = [int(token)]
        for _ in range(5):
            token, cache = greedy_step(model, token, cache)
            made.append(int(token))
    expected = model.generate(ids, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    assert made == expected[0, 3:].tolist()


def test_speed_of_models_side_by_side(monkeypatch):
    monkeypatch.setattr(evaluate, "PROMPT", 8)
    models = {"a": tiny.llama(), "b": tiny.llama(num_hidden_layers=1)}
    seen = []
    result = rectilinear.evaluate(models, tiny.tokenizer(), speed=True, on_progress=seen.append)
    assert [row.speed.prompt for row in result.models] == [8, 8]
    assert result.models[0].speed.cache_bytes_per_token == 3 * result.models[1].speed.cache_bytes_per_token
    assert (seen[-1].task, seen[-1].done) == ("timing", seen[-1].total)
    assert result.models[0].text is None


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert speed.process_peak() is None


@pytest.mark.parametrize("cache", [((torch.ones(2, 3), torch.ones(2, 3)),), {"keys": torch.ones(12)}])
def test_caches_of_any_class_are_counted(cache):
    assert speed.cache_bytes(cache) == 48
