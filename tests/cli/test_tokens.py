import json
import re
import shutil

import pytest
from typer.testing import CliRunner

import tiny
from commands import fails, loaded_by
from rectilinear.cli.main import app

FILES = {"tokens.json", "tokens.html", "heatmap.svg", "heatmap.png", "SHA256SUMS"}
PROMPT = ["--prompt", "w1 w2 w3"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, folder, text):
    out = tmp_path_factory.mktemp("out") / "tokens"
    done = run(folder, *PROMPT, "--text", text, "--window", 32, "--out", out)
    assert "'w2'" in done.stdout and "after layer 2" in done.stdout
    return out


def run(*arguments):
    done = CliRunner().invoke(app, ["tokens", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done


def test_the_folder_holds_page_picture_document_and_maps(fitted):
    assert {path.name for path in fitted.iterdir()} == FILES | {"maps.safetensors"}
    document = json.loads((fitted / "tokens.json").read_text())
    assert [token["token"] for token in document["tokens"]] == ["w1", "w2", "w3"]
    assert document["provenance"]["maps"]["text"] == "docs.jsonl"
    assert document["provenance"]["command"].startswith("rectilinear")
    assert [path.name for path in fitted.parent.iterdir()] == ["tokens"]


def test_maps_are_used_again_and_stay_where_they_are(folder, fitted, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("w1 w2 w3\n")
    out = tmp_path / "again"
    done = run(folder, "--file", prompt, "--maps", fitted, "--json", "--out", out)
    assert {path.name for path in out.iterdir()} == FILES
    ours, first = json.loads(done.stdout), json.loads((fitted / "tokens.json").read_text())
    assert ours["provenance"]["maps"] == first["provenance"]["maps"]
    for a, b in zip(ours["tokens"], first["tokens"], strict=True):
        assert a["relative_error"] == pytest.approx(b["relative_error"], rel=1e-5)


def test_a_folder_that_is_replaced_keeps_the_maps_that_came_from_it(folder, text, tmp_path):
    out = tmp_path / "out"
    run(folder, *PROMPT, "--text", text, "--window", 32, "--out", out)
    run(folder, "--prompt", "w9", "--maps", out, "--out", out, "--force")
    assert {path.name for path in out.iterdir()} == FILES | {"maps.safetensors"}
    assert json.loads((out / "tokens.json").read_text())["tokens"][0]["token"] == "w9"


def test_a_folder_is_drawn_again_without_torch(fitted, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(fitted, again)
    for name in ("tokens.html", "heatmap.svg", "heatmap.png"):
        (again / name).unlink()
    done = CliRunner().invoke(app, ["report", str(again)])
    assert done.exit_code == 0 and "'w2'" in done.stdout and "tokens.html" in done.stderr
    assert {path.name for path in again.iterdir()} == FILES - {"heatmap.png"} | {"maps.safetensors"}
    for name in ("tokens.html", "heatmap.svg"):
        assert (again / name).read_bytes() == (fitted / name).read_bytes()
    done = CliRunner().invoke(app, ["report", "--png", "--json", str(again / "tokens.json")])
    assert json.loads(done.stdout) == json.loads((fitted / "tokens.json").read_text())
    assert (again / "heatmap.png").read_bytes() == (fitted / "heatmap.png").read_bytes()
    assert not {"torch", "transformers", "datasets", "matplotlib"} & loaded_by(["report", again])


def test_json_alone_writes_nothing(folder, fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(folder, *PROMPT, "--maps", fitted, "--json")
    assert json.loads(done.stdout)["kind"] == "tokens"
    assert not list(tmp_path.iterdir())


def test_a_scan_tells_which_tokens_carry_its_error(folder, text, tmp_path):
    out = tmp_path / "scan"
    done = CliRunner().invoke(app, ["scan", str(folder), "--text", str(text), "--window", "32", "--out", str(out)])
    assert done.exit_code == 0, done.output
    said = run("--corpus", out).stdout
    assert "worst 1 % of unseen tokens" in said and "continuation" in said
    told = json.loads(run("--corpus", out, "--json").stdout)
    assert sum(row["mean"] for row in told["classes"] if row["name"] != "rare") == pytest.approx(1)
    assert told["tokens"][0]["mean"] == max(row["mean"] for row in told["tokens"])
    done = run("--corpus", out, "--out", tmp_path / "carriers")
    assert "carriers.html" in done.stderr and "tail index" in done.stdout
    assert json.loads((tmp_path / "carriers" / "carriers.json").read_text()) == told
    assert (out / "plots" / "carriers.svg").read_text() == (tmp_path / "carriers" / "carriers.svg").read_text()


def test_maps_come_from_a_scan_that_kept_its_moments(folder, text, tmp_path, capsys, monkeypatch):
    out, plain = tmp_path / "deep" / "kept", tmp_path / "plain"
    for target, more in ((out, ["--keep-moments"]), (plain, [])):
        arguments = ["scan", folder, "--text", text, "--window", "32", "--out", target, *more]
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
    assert [path.name for path in out.parent.iterdir()] == ["kept"]  # nothing is left beside it
    found = json.loads(run(folder, *PROMPT, "--maps", out, "--json").stdout)
    assert found["provenance"]["maps"]["text"] == "docs.jsonl" and found["provenance"]["maps"]["tokens"] == 1200
    cases = [
        (["tokens", folder, *PROMPT, "--maps", plain], "--keep-moments"),
        (["tokens", folder, *PROMPT, "--maps", out, "--tokens", "99", "--sink-multiple", "9"], "--tokens, --sink-mul"),
        (["tokens", folder, *PROMPT, "--maps", out, "--text", text, "--window", "32"], "without --text, --window"),
        (["scan", folder, "--text", text, "--keep-moments", "--json"], "expected --out with --keep-moments"),
    ]
    for arguments, expected in cases:
        assert expected in fails(arguments, capsys, monkeypatch)


def test_help_names_the_options():
    said = run("--help").stdout
    assert all(option in said for option in ("--prompt", "--file", "--maps", "--text", "--tokens"))


def test_wrong_input_is_one_line_and_exit_code_2(folder, text, fitted, tmp_path, capsys, monkeypatch):
    other, latin, empty = tmp_path / "other", tmp_path / "latin.txt", tmp_path / "empty.txt"
    tiny.llama(initializer_range=0.2).save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    capsys.readouterr()  # transformers draws a bar while it saves
    latin.write_bytes(b"caf\xe9")
    empty.write_text("\n")
    new = ["--out", tmp_path / "new"]
    cases = [
        ([folder, *new], "expected --prompt or --file, got neither"),
        ([folder, *PROMPT, "--file", latin, *new], "got both"),
        ([], "expected a model"),
        ([folder, "--corpus", fitted], "--corpus without a model or a prompt, got .*tiny-llama"),
        (["--corpus", fitted, "--maps", fitted, *PROMPT], "got --prompt, --maps"),
        (["--corpus", fitted], "expected a folder written by"),
        ([folder, "--prompt", " ", *new], "empty"),
        ([folder, "--file", empty, *new], "an empty one in"),
        ([folder, "--file", tmp_path / "gone.txt", *new], "cannot read .*gone.txt: No such file"),
        ([folder, "--file", latin, *new], "UTF-8 .* 0xe9"),
        ([folder, *PROMPT, "--maps", tmp_path, *new], "no maps.safetensors there"),
        ([other, *PROMPT, "--maps", fitted, *new], "expected maps of .*other"),
        ([folder, *PROMPT, "--tokens", "some", *new], "--tokens"),
        ([folder, *PROMPT, "--text", text, "--out", fitted], "--force"),
    ]
    for arguments, expected in cases:
        said = fails(["tokens", *arguments], capsys, monkeypatch)
        assert re.search(expected, said), (arguments, said)
        assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
