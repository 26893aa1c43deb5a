import shutil

import pytest

import rectilinear
from rectilinear.app import engine as module
from rectilinear.app.engine import FIT, Engine, Question

PROMPT = "w5 w9 w70 w33 w1 w9"


@pytest.fixture
def engine(folder, scans):
    return Engine([str(folder)], scans)


@pytest.fixture
def asked(folder):
    return Question(str(folder), "kept", PROMPT)


def test_maps_are_those_of_the_model_and_the_offer_to_fit(engine, folder):
    assert engine.open(str(folder)) == 3
    assert engine.maps_of(str(folder)) == ["kept", "tokens", FIT]


def test_answers_are_those_of_the_commands(engine, asked, folder, scans):
    model, tokenizer = rectilinear.load(str(folder))
    expected = rectilinear.tokens(model, tokenizer, PROMPT, maps=rectilinear.Maps.load(scans / "kept"))
    found = engine.look(asked, 2)
    for a, b in zip(found.tokens, expected.tokens, strict=True):
        assert a.relative_error == pytest.approx(b.relative_error, rel=1e-5)
        assert len(a.logit_lens) == (4 if a.position == 2 else 1)
    assert len(engine.look(asked).tokens[-1].linear_lens) == 4  # the last one where none is named
    assert engine.scan(asked).layers[1].triggers
    assert engine.scan(Question(str(folder), "tokens", PROMPT)) is None


def test_an_answer_that_is_known_is_not_worked_out_again(engine, asked, monkeypatch):
    first = engine.look(asked), engine.read(asked), engine.read(asked, [1])
    monkeypatch.setattr(module, "tokens", None)
    monkeypatch.setattr(module, "read", None)
    assert (engine.look(asked), engine.read(asked), engine.read(asked, [1])) == first
    with pytest.raises(TypeError):
        engine.read(asked, [2])


def test_the_weights_are_read_for_a_fingerprint_once_a_model(engine, asked, folder, monkeypatch):
    engine.open(str(folder))
    monkeypatch.setattr(module, "fingerprint", None)
    monkeypatch.setattr("rectilinear.ops.maps.fingerprint", None)
    assert engine.look(asked) and engine.read(asked, [], [0]) and engine.maps_of(str(folder))


def test_few_answers_are_kept(engine, asked, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    for removed in ([], [0], [1], [2]):
        engine.read(asked, removed)
    assert len(engine._answers) == 2


def test_layers_can_be_removed_or_linear(engine, asked):
    dense, gone, straight = engine.read(asked), engine.read(asked, [0]), engine.read(asked, [], [0])
    assert len({dense.nats, gone.nats, straight.nats}) == 3
    assert len(dense.completion.split()) == module.NEW_TOKENS


def test_maps_are_fitted_where_asked_and_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIT_TOKENS", 512)
    engine, told = Engine([str(folder)], tmp_path), []
    assert engine.maps_of(str(folder)) == [FIT]
    question = Question(str(folder), FIT, PROMPT)
    engine.look(question, on_progress=lambda *state: told.append(state))
    assert told[-1] == (512, 512)
    engine._loaded.maps = None
    monkeypatch.setattr(module, "fit_maps", None)
    assert engine.look(question, 0).tokens


def test_what_is_not_offered_is_refused(engine, asked, folder, scans):
    for maps in ("plain", "..", "../..", str(scans / "kept"), "gone", "notes.txt"):
        with pytest.raises(rectilinear.ResultError):
            engine.look(Question(str(folder), maps, PROMPT))
    with pytest.raises(rectilinear.ResultError, match="expected maps of"):
        engine.look(Question(str(folder), "other", PROMPT))
    with pytest.raises(rectilinear.ModelError, match="expected one of the models"):
        engine.look(Question("gpt2", "kept", PROMPT))
    with pytest.raises(rectilinear.TextError, match="empty"):
        engine.look(Question(str(folder), "kept", " "))
    with pytest.raises(rectilinear.TextError, match=r"up to 512 tokens here, got 600"):
        engine.look(Question(str(folder), "kept", "w1 " * 600))


def test_no_link_leads_out_of_the_folder(folder, scans, tmp_path):
    inside = tmp_path / "scans"
    inside.mkdir()
    (inside / "whole").symlink_to(scans / "kept")
    shutil.copytree(scans / "kept", inside / "parts")
    (inside / "parts" / "result.json").unlink()
    (inside / "parts" / "result.json").symlink_to(scans / "kept" / "result.json")
    shutil.copytree(scans / "kept", inside / "files")
    file = next((inside / "files" / "moments").glob("layer-000*"))
    file.unlink()
    file.symlink_to(next((scans / "kept" / "moments").glob("layer-000*")))
    engine = Engine([str(folder)], inside)
    assert engine.maps_of(str(folder)) == [FIT]
    with pytest.raises(rectilinear.ResultError):
        engine.look(Question(str(folder), "whole", PROMPT))
