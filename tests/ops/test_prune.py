import copy
import json
from dataclasses import replace

import pytest
import torch

import rectilinear
import tiny
from rectilinear.core.linear import scores
from rectilinear.core.moments import Moments
from rectilinear.errors import ModelError, ResultError, TextError
from rectilinear.models.load import earlier_fingerprint
from rectilinear.models.stack import decoder_stack, forward, watch
from rectilinear.ops.cut.bench import Bench, Options, evaluating
from rectilinear.ops.cut.registry import SELECTORS
from rectilinear.ops.heal import check_teacher
from rectilinear.ops.prune import plan_for
from rectilinear.report.model import card
from rectilinear.results import Plan, SweepResult

LAYERS = 6
DOCUMENTS = tiny.documents(count=60)
WINDOW = 32


@pytest.fixture(scope="module")
def model():
    return tiny.llama(num_hidden_layers=LAYERS)


def prune(model, **options):
    return rectilinear.prune(model, tiny.tokenizer(), texts=DOCUMENTS, window=WINDOW, **options)


def bench(model, **options):
    return Bench(model, tiny.tokenizer(), DOCUMENTS, Options(window=WINDOW, **options))


def test_the_model_given_stays_as_it_is(model):
    before = copy.deepcopy(model.state_dict())
    cut = prune(model, remove=2)
    assert len(decoder_stack(cut.model)) == LAYERS - 2
    assert len(decoder_stack(model)) == LAYERS
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_refit_is_better_than_removing_on_text_it_has_not_seen(model):
    kl = {repair: prune(model, layers=[2, 3], repair=repair).result.cut.kl for repair in ("none", "refit")}
    assert kl["refit"] < kl["none"]


def test_figures_of_the_result_are_those_of_the_model_that_comes_out(model):
    cut = prune(model, layers=[1, 4], repair="refit")
    ids = bench(model).judge.ids
    with torch.no_grad():
        dense, small = (m(input_ids=ids).logits.double().log_softmax(-1) for m in (model, cut.model))
    nats = -small[:, :-1].gather(2, ids[:, 1:, None]).mean()
    assert cut.result.cut.perplexity == pytest.approx(float(nats.exp()), rel=1e-4)
    assert cut.result.cut.kl == pytest.approx(float((dense.exp() * (dense - small)).sum(-1).mean()), rel=1e-3)
    assert cut.result.parameters == sum(p.numel() for p in cut.model.parameters())


@pytest.mark.parametrize("select", SELECTORS)
def test_every_selector_gives_every_size_and_keeps_what_is_protected(model, select):
    with evaluating(model):
        path, _ = bench(model, select=select, protect=(0, 5), effort="balanced").path(3)
    assert set(path) == {1, 2, 3}
    for size, layers in path.items():
        assert len(set(layers)) == size
        assert not {0, 5} & set(layers)


def test_linearity_is_the_papers_order(model):
    cut_bench = bench(model, select="linearity")
    with evaluating(model):
        path, _ = cut_bench.path(LAYERS - 1)
        moments = [Moments.empty(32, 32) for _ in range(LAYERS)]
        ids = cut_bench.ids[: cut_bench.search_teacher.tokens // WINDOW]

        def add(i, x, y):
            moments[i].update(x.flatten(0, 1), (y - x).flatten(0, 1))

        with watch(cut_bench.stack, add):
            forward(model, cut_bench.stack, ids, None)
    order = sorted(range(LAYERS), key=lambda i: -scores(moments[i]).score)
    assert path == {n: tuple(sorted(order[:n])) for n in range(1, LAYERS)}


def test_span_takes_the_window_that_a_linear_map_replaces():
    model = tiny.llama(num_hidden_layers=LAYERS, initializer_range=0.15)
    with torch.no_grad():
        for layer in model.model.layers[2:4]:  # these two give the stream on as it is: the most linear of maps
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    with evaluating(model):
        path, _ = bench(model, select="span").path(3)
    assert path[2] == (2, 3)
    assert path[1] in ((2,), (3,))
    assert set(path[3]) > {2, 3}


def test_kl_is_never_worse_than_the_sets_it_starts_from(model):
    with evaluating(model):
        one = bench(model, effort="thorough")
        path, tried = one.path(3)
        verdicts = dict(tried)
        for select in ("linearity", "bi", "angular"):
            other, _ = bench(model, select=select).path(3)
            assert verdicts[path[3]] <= verdicts[other[3]]
    assert len(tried) == len(verdicts)  # nothing is tried twice


def test_one_shot_costs_at_most_three_forward_passes(model):
    result = prune(model, remove=2, effort="one-shot").result
    assert result.passes <= 3
    assert not result.tried


def test_a_plan_gives_the_same_weights(model, tmp_path):
    first = prune(model, remove=2, effort="one-shot")
    folder = first.save(tmp_path / "cut")
    plan = Plan.load(folder)
    assert plan == first.plan
    again = prune(model, plan=plan)
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in first.model.state_dict().items())
    assert json.loads((folder / "prune.json").read_text())["kind"] == "prune"
    assert "layers" in (folder / "README.md").read_text()


def test_a_dry_plan_is_the_plan(model):
    options = {"texts": DOCUMENTS, "window": WINDOW, "remove": 2, "effort": "one-shot"}
    assert plan_for(model, tiny.tokenizer(), **options) == prune(model, remove=2, effort="one-shot").plan


def test_another_text_can_judge(model):
    cut = prune(model, layers=[3], judge_texts=tiny.documents(count=40, seed=9), judge_tokens=256)
    assert cut.plan.calibration["judge_apart"]
    assert cut.plan.calibration["judge_tokens"] == 256
    assert "another text" in card(cut.result, "cut.md.j2")
    again = prune(model, plan=cut.plan)  # judged on its own text, it keeps as much of that from the repairs
    assert again.plan.calibration["kept_tokens"] == cut.plan.calibration["kept_tokens"]
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in cut.model.state_dict().items())


def test_a_budget_of_perplexity_is_kept(model):
    cut = prune(model, max_perplexity_increase=10.0, effort="one-shot")
    assert cut.result.cut.perplexity <= 11.0 * cut.result.dense.perplexity
    with pytest.raises(ModelError, match="allow more"):
        prune(model, max_perplexity_increase=1e-9, effort="one-shot")


def test_refitting_after_the_cut_changes_the_layers_above(model):
    below, above = (prune(model, layers=[2], refit_after=after).model for after in (False, True))
    a, b = (m.model.layers[4].mlp.down_proj.weight for m in (below, above))
    assert torch.equal(a, model.model.layers[5].mlp.down_proj.weight)
    assert not torch.equal(a, b)


def test_a_share_of_the_layers(model):
    assert len(prune(model, remove="34%", effort="one-shot").plan.remove) == 2


def test_a_sweep_has_every_curve_and_leaves_the_model_alone(model, tmp_path):
    before = copy.deepcopy(model.state_dict())
    result = rectilinear.sweep(
        model,
        tiny.tokenizer(),
        texts=DOCUMENTS,
        window=WINDOW,
        counts=range(4),
        selects=["linearity", "bi"],
        repairs=["none", "linear"],
    )
    assert len(result.points) == 3 * 4
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for kind in result.kinds:
        assert [len(p.remove) for p in result.curve(*kind)] == [0, 1, 2, 3]
    cut = prune(model, layers=result.points[1].remove, repair="none")
    assert cut.result.cut.kl == pytest.approx(result.points[1].loss.kl, rel=1e-4)
    assert cut.result.parameters == result.points[1].parameters
    folder = result.save(tmp_path / "sweep")
    assert {"sweep.json", "SHA256SUMS", "sweep.csv", "sweep.html", "plots"} == {p.name for p in folder.iterdir()}
    assert SweepResult.from_dict(json.loads((folder / "sweep.json").read_text())).points == result.points


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"remove": LAYERS}, ModelError, "at most 5 layers"),
        ({"remove": 0}, ModelError, "at least one"),
        ({"remove": "2x"}, ModelError, "a share like 20%"),
        ({"remove": 5, "protect": (0, 1)}, ModelError, "2 of them protected"),
        ({"remove": 1, "protect": (9,)}, ModelError, "to protect, got 9"),
        ({"layers": [1, 1]}, ModelError, "each once"),
        ({"layers": [7]}, ModelError, "from 0 to 5"),
        ({"layers": [1], "protect": (1,)}, ModelError, "not protected, got layer 1"),
        ({"layers": list(range(LAYERS))}, ModelError, "1 to 5 layers"),
        ({}, ModelError, "one of remove"),
        ({"remove": 1, "layers": [1]}, ModelError, "one of remove"),
        ({"remove": 1, "select": "lineerity"}, ModelError, "Did you mean 'linearity'"),
        ({"remove": 1, "repair": "refitt"}, ModelError, "Did you mean 'refit'"),
        ({"remove": 1, "ridge": 0.0}, ModelError, "above 0"),
        ({"remove": 1, "tokens": WINDOW}, TextError, "two windows"),
    ],
)
def test_wishes_that_cannot_be_are_refused(model, options, error, said):
    with pytest.raises(error, match=said):
        prune(model, **options)


def test_a_plan_for_another_model_is_refused(model):
    plan = prune(model, layers=[1], repair="none").plan
    for other in (tiny.llama(num_hidden_layers=LAYERS, vocab_size=130), tiny.massive(num_hidden_layers=LAYERS)):
        with pytest.raises(ResultError, match="plan for this model"):
            prune(other, plan=plan)


def test_a_plan_of_an_earlier_version_is_known_by_its_fingerprint(model):
    plan = replace(prune(model, layers=[1], repair="none").plan, fingerprint=earlier_fingerprint(model))
    assert prune(model, plan=plan).plan == plan
    check_teacher(model, plan)
    with pytest.raises(ResultError, match="plan for this model"):
        prune(tiny.llama(num_hidden_layers=LAYERS, vocab_size=130), plan=plan)


def test_few_tokens_raise_the_ridge_and_fewer_are_refused():
    wide = tiny.llama(num_hidden_layers=LAYERS, intermediate_size=1024)
    cut = prune(wide, layers=[2], tokens=1024)
    assert cut.plan.ridge > 0.1
    assert "the ridge is raised" in cut.result.warnings[0]
    again = prune(wide, plan=cut.plan).model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in cut.model.state_dict().items())
    with pytest.raises(TextError, match="256 tokens or more to refit 1,024"):
        prune(wide, layers=[2], tokens=256)


@pytest.mark.parametrize("document", [[], {"schema": 1, "kind": "scan"}, {"schema": 1, "kind": "plan", "remove": 3}])
def test_other_documents_are_no_plans(document, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ResultError, match="plan"):
        Plan.load(path)


@pytest.mark.parametrize("repair", ["linear", "patch"])
def test_maps_of_a_low_rank_are_kept_as_two_factors(model, repair, tmp_path):
    full = prune(model, layers=[2, 3], repair=repair)
    low = prune(model, layers=[2, 3], repair=repair, rank=2)
    assert low.plan.rank == 2
    assert set(low.model.config.linear_blocks["ranks"].values()) == {2}
    assert low.result.parameters < full.result.parameters
    ids = bench(model).judge.ids
    with torch.no_grad():
        dense, small = (m(input_ids=ids).logits.double().log_softmax(-1) for m in (model, low.model))
    assert low.result.cut.kl == pytest.approx(float((dense.exp() * (dense - small)).sum(-1).mean()), rel=1e-3)
    again = prune(model, plan=Plan.load(low.save(tmp_path / "low")))
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in low.model.state_dict().items())


@pytest.mark.parametrize(("rank", "repair"), [(0, "linear"), (2, "refit")])
def test_a_rank_is_for_maps(model, rank, repair):
    with pytest.raises(ModelError, match="rank"):
        prune(model, layers=[2], repair=repair, rank=rank)


def test_a_model_over_several_devices_is_refused():
    spread = tiny.llama()
    spread.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    with pytest.raises(ModelError, match="a model on one device to cut, got one over 0, 1"):
        bench(spread)


def test_a_layers_own_forward_is_there_after_its_logits_were_asked_for(model):
    own = bench(model)
    calls, layer = [], own.stack[1]
    plain = layer.forward

    def watched(*arguments, **options):
        calls.append(1)
        return plain(*arguments, **options)

    layer.forward = watched
    try:
        ids = own.ids[:1]
        with torch.inference_mode():
            own.runner.logits(own.runner.embed(ids))
            assert layer.forward is watched
            model(ids)
        assert calls
    finally:
        del layer.forward
