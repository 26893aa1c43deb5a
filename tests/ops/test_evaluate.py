import math

import pytest
import torch
import transformers as hf

import rectilinear
import tiny
from rectilinear.ops.evaluate import Candidate, evaluate_models
from rectilinear.ops.protocol import Settings

TEXTS = [f"{text} " for text in tiny.documents(12)]  # 40 tokens each; joined as they are, words must not fuse
IDS = torch.tensor(tiny.tokenizer()("".join(TEXTS))["input_ids"])


@pytest.fixture(scope="module")
def model():
    return tiny.llama()


@pytest.fixture(scope="module")
def other():
    torch.manual_seed(5)
    other = tiny.llama()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return other


def log_probabilities(model, ids):
    with torch.inference_mode():
        return model(ids[None]).logits[0].double().log_softmax(-1)


def text_of(result):
    return result.models[0].text


def test_one_window_is_transformers_own_loss(model):
    ids = IDS[None, :64]
    with torch.inference_mode():
        loss = float(model(ids, labels=ids).loss)
    score = text_of(rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=64, tokens=64))
    assert math.log(score.perplexity) == pytest.approx(loss, rel=1e-6)
    assert score.nats == pytest.approx(63 * loss, rel=1e-6)
    assert (score.protocol.tokens, score.protocol.tokens_read, score.protocol.windows) == (63, 64, 1)
    assert rectilinear.perplexity(model, tiny.tokenizer(), TEXTS, window=64, tokens=64) == score.perplexity


def test_perplexity_is_of_sums_and_not_the_mean_of_windows(model):
    texts = ["w1 " * 30 + "w2 " * 2, TEXTS[0]]
    score = text_of(rectilinear.evaluate(model, tiny.tokenizer(), texts, window=32, protocol="documents"))
    nats, counts = [], []
    for text in texts:
        for ids in torch.tensor(tiny.tokenizer()(text)["input_ids"]).split(32):
            p = log_probabilities(model, ids)
            nats.append(-float(p[:-1].gather(1, ids[1:, None]).sum()))
            counts.append(len(ids) - 1)
    assert score.perplexity == pytest.approx(math.exp(sum(nats) / sum(counts)), rel=1e-6)
    naive = sum(math.exp(n / c) for n, c in zip(nats, counts, strict=True)) / len(nats)
    assert abs(score.perplexity - naive) > 0.5
    assert score.perplexity_low < score.perplexity < score.perplexity_high


@pytest.mark.parametrize("protocol", ["joined", "documents"])
@pytest.mark.parametrize("stride", [None, 5])
def test_batch_size_does_not_matter(model, other, protocol, stride):
    scores = []
    for batch_tokens in (1, 100, 4096):
        options = {"window": 16, "stride": stride, "protocol": protocol, "batch_tokens": batch_tokens}
        result = rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, reference=other, **options)
        scores.append((text_of(result).nats, text_of(result).accuracy, result.models[0].divergence.kl))
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert scores[2] == pytest.approx(scores[0], rel=1e-5)


def test_strided_is_the_naive_loop(model):
    window, stride = 16, 6
    nats = count = done = 0
    for start in range(0, len(IDS) - window + 1, stride):
        ids = IDS[start : start + window]
        p = log_probabilities(model, ids)
        for position in range(max(1, done - start), window):
            nats -= float(p[position - 1, ids[position]])
            count += 1
        done = start + window
    score = text_of(rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=window, stride=stride))
    assert score.protocol.tokens == count == done - 1
    assert score.nats == pytest.approx(nats, rel=1e-6)
    plain = text_of(rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=window))
    assert plain.protocol.tokens == len(IDS) // window * (window - 1)
    assert "a new one every 6" in score.protocol.words and "a new one" not in plain.protocol.words


def test_bits_per_byte_cover_the_predicted_text(model):
    score = text_of(rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, protocol="documents", window=64))
    covered = sum(len(text.rstrip()) - len(text.split()[0]) for text in TEXTS)
    assert score.protocol.bytes == covered
    assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / covered)


def test_divergence_is_the_direct_formula_and_zero_from_itself(model, other):
    result = rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=40, reference=other)
    kl, agree = [], []
    for ids in IDS.split(40):
        q, p = log_probabilities(model, ids)[:-1], log_probabilities(other, ids)[:-1]
        kl.append((p.exp() * (p - q)).sum(1))
        agree.append(p.argmax(1) == q.argmax(1))
    found = result.models[0].divergence
    assert found.kl == pytest.approx(float(torch.cat(kl).mean()), rel=1e-5)
    assert found.agreement == pytest.approx(float(torch.cat(agree).double().mean()))
    assert found.kl_low < found.kl < found.kl_high
    assert found.agreement_low <= found.agreement <= found.agreement_high
    same = rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=40, reference=model).models[0]
    assert (same.divergence.kl, same.divergence.agreement, same.text.ratio) == (0, 1, 1)


def test_several_models_share_the_references_logits(model, other):
    calls = []
    handle = other.register_forward_pre_hook(lambda module, args: calls.append(1))
    both = {"a": model, "b": tiny.llama(num_hidden_layers=2)}
    result = rectilinear.evaluate(both, tiny.tokenizer(), TEXTS, window=40, reference=other, batch_tokens=80)
    handle.remove()
    assert len(calls) == 6 + 1  # once a batch, and once to see that it is a decoder
    assert [row.name for row in result.rows[1:]] == ["a", "b"]
    alone = rectilinear.evaluate(both["b"], tiny.tokenizer(), TEXTS, window=40, reference=other)
    assert result.models[1].divergence.kl == pytest.approx(alone.models[0].divergence.kl, rel=1e-6)
    assert result.models[1].size.layers == 2


def test_ratio_to_the_first_has_a_paired_interval_narrower_than_the_models_own(model):
    near = tiny.llama()
    with torch.no_grad():
        near.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    result = rectilinear.evaluate({"a": model, "b": near}, tiny.tokenizer(), iter(TEXTS), window=16)
    first, second = (row.text for row in result.models)
    assert first.ratio is None
    assert second.ratio == pytest.approx(second.perplexity / first.perplexity)
    assert second.ratio_low < second.ratio < second.ratio_high
    own = (second.perplexity_high - second.perplexity_low) / second.perplexity
    assert second.ratio_high - second.ratio_low < own / 5


def test_models_judged_on_other_windows_get_no_ratio_and_a_note(model):
    short = tiny.llama(max_position_embeddings=16)
    result = rectilinear.evaluate({"a": model, "b": short}, tiny.tokenizer(), TEXTS, window=32)
    assert result.models[1].text.ratio is None
    assert "cut from 32 to 16" in result.warnings[0]
    twice = rectilinear.evaluate({"a": short, "b": short}, tiny.tokenizer(), TEXTS, window=32)
    assert len(twice.warnings) == 1 and twice.models[1].text.ratio == 1
    assert "b was judged on other windows than a" in result.warnings[1]
    # With a reference they run together, so the shorter context holds for both.
    shared = rectilinear.evaluate(short, tiny.tokenizer(), TEXTS, window=32, reference=model)
    assert shared.reference.text.protocol.window == shared.models[0].text.protocol.window == 16


def test_models_are_held_one_at_a_time():
    import gc
    import weakref

    alive = []

    def candidates():
        for name in "abc":
            gc.collect()
            assert not any(reference() for reference in alive)
            model = tiny.llama()
            alive.append(weakref.ref(model))
            found = Candidate(name, model, tiny.tokenizer())
            del model
            yield found
            del found

    assert len(evaluate_models(candidates(), lambda: TEXTS, Settings(window=32)).models) == 3


def test_documents_are_resampled_whole_and_joined_text_by_windows(model):
    apart = rectilinear.evaluate(model, tiny.tokenizer(), TEXTS[:1], window=8, protocol="documents")
    assert text_of(apart).perplexity_low is None  # one document, however many windows
    assert text_of(apart).protocol.documents == 1
    joined = rectilinear.evaluate(model, tiny.tokenizer(), TEXTS[:1], window=8)
    assert text_of(joined).perplexity_low is not None


def test_more_documents_than_blocks_are_resampled_in_groups(model, monkeypatch):
    from rectilinear.ops import scores

    monkeypatch.setattr(scores, "MAX_BLOCKS", 5)
    few = text_of(rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=40, protocol="documents"))
    assert few.perplexity_low < few.perplexity < few.perplexity_high


def test_the_start_token_is_told(model):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = "w1"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="w1 $A", special_tokens=[("w1", 1)])
    joined = text_of(rectilinear.evaluate(model, tokenizer, TEXTS, window=16)).protocol
    assert joined.bos and "one start token before the text" in joined.words
    apart = text_of(rectilinear.evaluate(model, tokenizer, TEXTS, window=64, protocol="documents")).protocol
    assert "start token before each" in apart.words
    assert apart.tokens == 12 * 40  # the first word of each is predicted too
    assert not text_of(rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=16)).protocol.bos


def test_last_words_are_counted_as_greedy_generation_makes_them(model):
    tokenizer = tiny.tokenizer()
    passages = []
    for text in TEXTS:
        prompt = torch.tensor([tokenizer(text)["input_ids"]])
        made = model.generate(prompt, max_new_tokens=2, do_sample=False, pad_token_id=0)[0, -2:].tolist()
        passages.append((text.strip(), "".join(f" w{i}" for i in made)))
    right = rectilinear.evaluate(model, tokenizer, passages=passages).models[0].lambada
    assert (right.accuracy, right.passages) == (1.0, 12)
    wrong = [(context, word if i % 3 else word[:-1] + "x") for i, (context, word) in enumerate(passages)]
    found = rectilinear.evaluate(model, tokenizer, passages=wrong, batch_tokens=50).models[0].lambada
    assert found.accuracy == pytest.approx(8 / 12)
    assert found.accuracy_low < found.accuracy < found.accuracy_high
    nats = 0.0
    for context, word in wrong:
        ids = torch.tensor(tokenizer(context + word)["input_ids"])
        p = log_probabilities(model, ids)
        nats -= float(p[-3:-1].gather(1, ids[-2:, None]).sum())
    assert found.perplexity == pytest.approx(math.exp(nats / 12), rel=1e-5)


def test_progress_ends_at_its_total(model, other):
    seen = []
    rectilinear.evaluate(
        model, tiny.tokenizer(), TEXTS, window=16, reference=other, passages=[("w1 w2", " w3")], on_progress=seen.append
    )
    assert {state.task.split()[0] for state in seen} == {"predicting", "LAMBADA"}
    ends = {state.task: (state.done, state.total) for state in seen}
    assert all(done == total for done, total in ends.values())
    assert seen[0].perplexity is None  # the reference comes first, and the model is still to be run
    assert seen[1].perplexity > 1


def test_a_hopeless_model_is_infinitely_perplexed_and_still_saved(model):
    broken = tiny.llama()
    with torch.no_grad():
        broken.lm_head.weight.mul_(1e6)
    result = rectilinear.evaluate(broken, tiny.tokenizer(), TEXTS, window=16)
    assert text_of(result).perplexity == math.inf
    assert result.to_dict()["models"][0]["text"]["perplexity"] is None


def test_bad_input_is_one_clear_line(model):
    tokenizer = tiny.tokenizer()
    bert = hf.BertForMaskedLM(
        hf.BertConfig(
            vocab_size=tiny.VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
        )
    )
    t5 = hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=tiny.VOCAB, d_model=32, num_layers=1, d_ff=32))
    nan = tiny.llama()
    with torch.no_grad():
        nan.lm_head.weight.fill_(float("nan"))
    larger = tiny.llama(vocab_size=tiny.VOCAB + 8)
    cases = (
        (model, {}, "nothing to measure"),
        (model, {"texts": []}, "the source is empty"),
        (model, {"texts": TEXTS, "window": 512}, "got a text of 480.*--window 480"),
        (model, {"texts": "w1 w2", "window": 3}, "got a text of 2"),
        (model, {"texts": TEXTS, "window": 1}, "at least 2"),
        (model, {"texts": TEXTS, "window": 16, "stride": 17}, "stride between 1 and"),
        (model, {"texts": TEXTS, "protocol": "document"}, "Did you mean 'documents'"),
        (bert, {"texts": TEXTS, "window": 16}, "BertForMaskedLM: it looks at the tokens to come"),
        (model.model, {"texts": TEXTS, "window": 16}, "LlamaModel: it gives no logits"),
        (t5, {"texts": TEXTS, "window": 16}, "T5ForConditionalGeneration: it gives no logits"),
        (nan, {"texts": TEXTS, "window": 16}, "NaN or infinite logits in document 0"),
        (
            model,
            {"texts": TEXTS, "window": 16, "reference": larger},
            "vocabulary of the reference .*136 tokens, got 128",
        ),
        (tiny.llama(vocab_size=64), {"texts": TEXTS, "window": 16}, "token ids below 64"),
        (tiny.llama(max_position_embeddings=8), {"speed": True}, "context of more than 32"),
    )
    for each, options, said in cases:
        with pytest.raises(rectilinear.RectilinearError, match=said) as error:
            rectilinear.evaluate(each, tokenizer, **options)
        assert "\n" not in str(error.value)


def test_another_tokenizer_than_the_references_is_refused(model, other):
    mixed = hf.PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer().backend_tokenizer, unk_token="w9")
    mixed.add_tokens(["w999"])
    with pytest.raises(
        rectilinear.ModelError, match="tokenizer of the reference a, 128 tokens, got another of 129 in b"
    ):
        evaluate_models(
            [Candidate("b", other, mixed)],
            lambda: TEXTS,
            Settings(window=16),
            reference=Candidate("a", model, tiny.tokenizer()),
        )


def test_the_models_mode_is_restored(model):
    model.train()
    rectilinear.evaluate(model, tiny.tokenizer(), TEXTS, window=16)
    assert model.training
    model.eval()
