import json

import pytest
import torch
from typer.testing import CliRunner

import rectilinear
import tiny
from rectilinear.cli.main import app
from rectilinear.errors import ResultError, TextError
from rectilinear.models.stack import decoder_stack, forward, watch
from rectilinear.ops.resume import Checkpoints
from rectilinear.report.folder import load
from rectilinear.results import TextsResult

TEXTS = {"first": tiny.documents(count=60, seed=1), "second": tiny.documents(count=60, seed=2)}


@pytest.fixture(scope="module")
def model():
    return tiny.llama()


@pytest.fixture(scope="module")
def result(model):
    return rectilinear.scan_texts(model, tiny.tokenizer(), TEXTS, window=32)


def rows_of(model, documents, layer):
    """Return x and y of a layer for all tokens of the documents, each cut to windows of 32."""
    stack, seen = decoder_stack(model), []
    tokenizer = tiny.tokenizer()
    with torch.inference_mode(), watch(stack, lambda i, x, y: seen.append((x[0], y[0])) if i == layer else None):
        for document in documents:
            ids = torch.tensor(tokenizer(document)["input_ids"])
            for window in ids.split(32):
                forward(model, stack, window[None], None)
    return (torch.cat(side).double() for side in zip(*seen, strict=True))


def test_each_text_is_scanned_as_it_would_be_alone(model, result):
    alone = rectilinear.scan(model, tiny.tokenizer(), TEXTS["second"], window=32)
    assert result.names == ["first", "second"]
    assert result.results["second"].layers == alone.layers


def test_texts_that_were_killed_go_on_to_the_same_result(model, tmp_path):
    def scanned(**own):
        return rectilinear.scan_texts(model, tiny.tokenizer(), TEXTS, window=32, batch_tokens=256, **own)

    def stop(name, state):
        if name == "second" and state.done > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scanned(checkpoints=Checkpoints(tmp_path, 1, "tokens"), on_progress=stop)
    kept = Checkpoints(tmp_path, 1, "tokens")
    assert kept.there() and sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    again, whole = scanned(checkpoints=kept), scanned()
    assert again.transfer == whole.transfer
    assert [tiny.figures(again.results[name]) for name in TEXTS] == [
        tiny.figures(whole.results[name]) for name in TEXTS
    ]


def test_a_map_on_another_text_is_judged_on_all_its_tokens(model, result):
    fit = result.results["first"].provenance
    x, y = rows_of(model, TEXTS["first"], 1)
    assert len(x) == fit["tokens"]
    x, z = x[: fit["tokens_fit"]], (y - x)[: fit["tokens_fit"]]
    one = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    weight = torch.linalg.lstsq(one, z).solution
    x, y = rows_of(model, TEXTS["second"], 1)
    z = y - x
    error = (z - torch.cat([x, torch.ones(len(x), 1).double()], 1) @ weight).square().sum()
    for kind, target in (("increment", z), ("score", y)):
        expected = 1 - float(error / (target - target.mean(0)).square().sum())
        assert result.transfer[kind]["heldout"][1][0][1] == pytest.approx(expected, abs=1e-4)


def test_at_home_the_table_holds_the_held_out_score(result):
    for tokens in ("heldout", "ordinary"):
        for layer, table in enumerate(result.transfer["score"][tokens]):
            home = result.results["second"].layers[layer].score
            assert table[1][1] == getattr(home, tokens)
    assert result.means("score", "heldout")[0][1] == pytest.approx(
        sum(table[0][1] for table in result.transfer["score"]["heldout"]) / len(result.results["first"].layers)
    )


def test_the_folder_holds_a_scan_for_each_text_and_a_page(result, tmp_path):
    out = result.save(tmp_path / "texts")
    assert {path.name for path in out.iterdir()} == {
        "SHA256SUMS",
        "texts.json", "transfer.csv", "texts.html", "plots", "first", "second",
    }  # fmt: skip
    assert load(out / "first").layers == result.results["first"].layers
    assert json.loads((out / "texts.json").read_text())["names"] == ["first", "second"]
    page = (out / "texts.html").read_text()
    assert 'href="second/report.html"' in page
    with pytest.raises(ResultError, match="force"):
        result.save(out)
    bad = TextsResult({"../up": result.results["first"], "b": result.results["second"]}, result.transfer)
    with pytest.raises(ResultError, match="names of texts"):
        bad.save(tmp_path / "bad")


@pytest.mark.parametrize(("texts", "options"), [({"one": ["text"]}, {}), (TEXTS, {"holdout": 0})])
def test_nothing_to_compare_is_one_line(model, texts, options):
    with pytest.raises(TextError, match="expected"):
        rectilinear.scan_texts(model, tiny.tokenizer(), texts, **options)


def test_the_command_takes_named_texts(folder, tmp_path):
    for name, documents in TEXTS.items():
        (tmp_path / f"{name}.txt").write_text("<|endoftext|>\n".join(documents))
    named = [f"--text={name}={tmp_path / name}.txt" for name in TEXTS]
    arguments = ["scan", str(folder), *named, "--window", "32", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "maps fitted on" in done.output
    assert (tmp_path / "out" / "texts.html").exists()


@pytest.mark.parametrize(
    "texts", [["a=x.txt", "y.txt"], ["a=x.txt", "a=y.txt"], ["../a=x.txt", "b=y.txt"], ["a=", "b=y.txt"]]
)
def test_texts_without_a_name_each_are_refused(folder, texts):
    done = CliRunner().invoke(app, ["scan", str(folder), *[part for text in texts for part in ("--text", text)]])
    assert isinstance(done.exception, TextError) or done.exit_code == 2
