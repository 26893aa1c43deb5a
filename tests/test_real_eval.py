"""The evaluation on the real 135M-parameter model: against transformers' own loss and greedy generation."""

import math
from itertools import islice

import pytest
import torch

import rectilinear
from rectilinear.data.lambada import read_passages
from rectilinear.data.text import read_text

pytestmark = pytest.mark.real


def test_perplexity_is_transformers_loss_and_last_words_are_generated(data):
    model, tokenizer = rectilinear.load("demo")
    source = read_text(str(data / "wikitext2" / "wiki.test.raw.gz"))
    passages = list(islice(read_passages(str(data / "lambada" / "lambada_openai.jsonl.gz")), 5))
    result = rectilinear.evaluate(model, tokenizer, source.documents(), window=256, tokens=512, passages=passages)
    judged = result.models[0]
    ids = torch.tensor(tokenizer("".join(source.documents())[:9_000])["input_ids"][:512]).view(2, 256)
    with torch.inference_mode():
        loss = float(model(ids, labels=ids).loss)
    assert math.log(judged.text.perplexity) == pytest.approx(loss, rel=1e-5)
    assert 20 < judged.text.perplexity < 90 and 0.8 < judged.text.bits_per_byte < 1.6
    right = 0
    for context, word in passages:
        prompt = tokenizer(context, return_tensors="pt")
        length = len(tokenizer(context + word)["input_ids"]) - prompt["input_ids"].shape[1]
        made = model.generate(**prompt, max_new_tokens=length, do_sample=False)[0, -length:]
        right += tokenizer.decode(made) == word
    assert judged.lambada.accuracy == right / 5
