import json

import pytest
from typer.testing import CliRunner

import rectilinear
import tiny
from commands import fails
from rectilinear.cli.main import app


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": t + " "}) for t in tiny.documents()))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["prune", *map(str, arguments)])


def test_prune_writes_a_model_that_loads(folder, text, tmp_path):
    out = tmp_path / "cut"
    done = run(folder, "--remove", "1", "--text", text, "--window", "16", "--effort", "one-shot", "--out", out)
    assert done.exit_code == 0, done.output
    assert "perplexity" in done.output
    assert "one layer" in done.output
    model, _ = rectilinear.load(str(out))
    assert model.config.num_hidden_layers == 2
    assert {"plan.json", "prune.json", "README.md", "model.safetensors"} <= {p.name for p in out.iterdir()}
    plan = json.loads((out / "plan.json").read_text())
    again = run(folder, "--plan", out / "plan.json", "--text", text, "--out", tmp_path / "again", "--json")
    assert json.loads(again.stdout)["plan"]["remove"] == plan["remove"]
    first, second = ((p / "model.safetensors").read_bytes() for p in (out, tmp_path / "again"))
    assert first == second


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder, text, tmp_path):
    out = tmp_path / "cut"
    done = run(folder, "--layers", "1-2", "--text", text, "--window", "16", "--dry-run", "--out", out)
    assert "layers 1 to 2, two layers of 3" in done.output
    assert not out.exists()
    done = run(folder, "--layers", "1", "--text", text, "--window", "16", "--dry-run", "--json")
    assert json.loads(done.stdout)["kind"] == "plan"


def test_a_sweep_writes_its_page(folder, text, tmp_path):
    out = tmp_path / "sweep"
    done = run(
        *(folder, "--sweep", "0:2", "--select", "linearity,bi", "--repair", "none,refit", "--out", out),
        *("--text", text, "--judge-text", text, "--window", "16", "--effort", "one-shot"),
    )
    assert done.exit_code == 0, done.output
    assert done.output.count("linearity") >= 4
    assert "<svg" in (out / "sweep.html").read_text()


def test_a_dry_sweep_says_what_it_would_do(folder, text, tmp_path):
    wishes = ("--select", "linearity,bi", "--repair", "none", "--text", text, "--window", "16", "--dry-run")
    done = run(folder, "--sweep", "0:2", *wishes, "--out", tmp_path / "sweep")
    assert "0 to 2 layers changed, linearity and bi, each with none" in done.output
    assert not (tmp_path / "sweep").exists()


def test_a_budget(folder, text, tmp_path):
    wishes = ("--text", text, "--window", "16", "--effort", "one-shot", "--out", tmp_path / "cut")
    done = run(folder, "--max-perplexity-increase", "900%", *wishes)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected one of --remove"),
        (("--remove", "1", "--layers", "2"), "expected one of --remove"),
        (("--remove", "9"), "at most 2 layers"),
        (("--layers", "2-9"), "from 0 to 2"),
        (("--layers", "1,1"), "each layer once"),
        (("--remove", "1", "--protect", "1,x"), "like 12-17,20"),
        (("--sweep", "3"), "FROM:TO"),
        (("--max-perplexity-increase", "-5%"), "a share above 0"),
        (("--plan", "nowhere.json"), "cannot read nowhere.json"),
        (("--remove", "1", "--select", "best"), "expected a selector"),
    ],
)
def test_wrong_input_is_one_line(arguments, said, folder, text, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    wishes = ["--text", text, "--window", "16", "--out", tmp_path / "cut"]
    error = fails(["prune", folder, *arguments, *wishes], capsys, monkeypatch)
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "cut").exists()


def test_a_folder_that_exists_needs_force(folder, text, capsys, monkeypatch, tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "mine.txt").write_text("mine")
    arguments = ["prune", folder, "--remove", "1", "--text", text, "--out", tmp_path / "cut"]
    assert "exists; add --force" in fails(arguments, capsys, monkeypatch)
    assert "holds no plan.json" in fails([*arguments, "--force"], capsys, monkeypatch)


def test_a_search_that_was_interrupted_goes_on(folder, text, tmp_path, monkeypatch, capsys):
    from rectilinear.ops.cut.selectors import Search

    out, journal = tmp_path / "cut", tmp_path / ".cut.partial.jsonl"
    arguments = [folder, "--remove", "1", "--text", text, "--window", "16", "--out", out]
    really, tried = Search._really, []

    def interrupted(search, *of):
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(of[0])
        return really(search, *of)

    with monkeypatch.context() as patched:
        patched.setattr(Search, "_really", interrupted)
        stopped = run(*arguments)
    assert stopped.exit_code and f"kept in {journal}: go on with --resume" in stopped.stderr
    assert journal.read_text().count("\n") == 3 and not out.exists()
    assert "keeps an earlier search: add --resume to go on" in fails(["prune", *arguments], capsys, monkeypatch)
    done = run(*arguments, "--resume")
    assert done.exit_code == 0, done.output
    assert not journal.exists()
    assert f"{out} is done" in run(*arguments, "--resume").stderr
    whole = run(*arguments[:-1], tmp_path / "whole")
    assert whole.exit_code == 0
    first, second = ((p / "model.safetensors").read_bytes() for p in (out, tmp_path / "whole"))
    assert first == second
