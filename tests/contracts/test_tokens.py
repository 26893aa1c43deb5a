import pytest
import torch
from families import ENCODERS, FAMILIES

import rectilinear
import tiny

PROMPT = "w5 w9 w70 w33 w7 w9 w12"
SOME = ("llama", "gpt2", "gpt_neox", "opt", "opt_350m", "gemma2", "falcon", "granite", "cohere", "bloom", "mixtral")


@pytest.mark.parametrize("name", SOME)
def test_lenses_end_in_the_models_own_prediction(name):
    model, tokenizer = FAMILIES[name](), tiny.tokenizer()
    maps = rectilinear.fit_maps(model, tokenizer, tiny.documents(10), tokens=None, window=32)
    result = rectilinear.tokens(model, tokenizer, PROMPT, maps=maps)
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer(PROMPT)["input_ids"]])).logits[0].float()
    for token, row in zip(result.tokens, logits, strict=True):
        assert token.linear_lens[-1] == token.logit_lens[-1] == token.prediction
        assert token.prediction.probability == pytest.approx(float(row.softmax(0).max()), rel=1e-4)
        assert row[int(tokenizer.convert_tokens_to_ids(token.prediction.token))] == pytest.approx(float(row.max()))
        assert len(token.relative_error) == 4 and len(token.logit_lens) == 5
    assert all(
        torch.equal(a, b) for a, b in zip(vars(maps.layer[-1]).values(), vars(maps.lens[-1]).values(), strict=True)
    )


def test_what_sees_the_tokens_to_come_is_refused():
    model, tokenizer = ENCODERS["bert"](), tiny.tokenizer()
    maps = rectilinear.fit_maps(model, tokenizer, tiny.documents(10), tokens=None, window=32)
    with pytest.raises(rectilinear.ModelError, match="predicts the next token"):
        rectilinear.tokens(model, tokenizer, PROMPT, maps=maps)
