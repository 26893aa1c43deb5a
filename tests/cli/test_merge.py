import json
import shutil

import pytest
from typer.testing import CliRunner

from commands import fails
from rectilinear.cli.main import app
from rectilinear.report.folder import load


def run(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done


@pytest.fixture(scope="module")
def options(folder, text):
    return ["scan", folder, "--text", text, "--window", "32", "--batch-tokens", "128"]


@pytest.fixture(scope="module")
def shards(options, tmp_path_factory):
    """A scan in two shards: both shares of the fit part, merged, and both of the held-out part."""
    place = tmp_path_factory.mktemp("shards")
    for number in (1, 2):
        run(*options, "--shard", f"{number}/2", "--out", place / f"fit-{number}")
    done = run("merge", place / "fit-2", place / "fit-1", "--out", place / "fit")
    assert "missing to be a scan: 1, 2 of 2 of the held-out part" in done.stderr
    assert f"--shard I/2 --maps {place / 'fit'}, for I from 1 to 2" in done.stderr
    for number in (1, 2):
        run(*options, "--shard", f"{number}/2", "--maps", place / "fit", "--out", place / f"heldout-{number}")
    return place


def test_shards_merge_to_the_report_of_a_scan(options, shards, tmp_path):
    done = run("merge", *shards.glob("*-?"), "--out", tmp_path / "out", "--keep-moments")
    assert "mean" in done.stdout and "report.html" in done.stderr
    run(*options, "--out", tmp_path / "whole", "--keep-moments")
    merged, whole = load(tmp_path / "out"), load(tmp_path / "whole")
    for a, b in zip(merged.layers, whole.layers, strict=True):
        assert a.score.heldout == pytest.approx(b.score.heldout, rel=1e-10)
        assert a.score.heldout_low == pytest.approx(b.score.heldout_low, rel=1e-10)
        assert a.increment.ordinary == pytest.approx(b.increment.ordinary, rel=1e-10)
        assert a.triggers == b.triggers
    assert merged.provenance["shards"] == 2 and merged.provenance["command"].split()[0] == "rectilinear"
    assert merged.provenance["text"] == whole.provenance["text"] == "docs.jsonl"
    names = [{p.name for p in (tmp_path / out).rglob("*")} for out in ("out", "whole")]
    assert names[0] == names[1]
    run("verify", tmp_path / "out")
    run("verify", shards / "fit")
    assert not list(shards.glob(".*"))


def test_a_dry_run_says_what_is_missing(shards, tmp_path):
    arguments = ["merge", shards / "fit-1", shards / "heldout-2", "--out", tmp_path / "out", "--dry-run"]
    said = run(*arguments).stdout
    assert "2 of 2 of the fit part and 1 of 2 of the held-out part" in " ".join(said.split())
    document = json.loads(run(*arguments, "--json").stdout)
    assert (document["fit"], document["heldout"]) == ([1], [2])
    assert not (tmp_path / "out").exists()


def test_a_part_merged_as_json_is_its_document(shards, tmp_path):
    done = run("merge", shards / "fit-1", shards / "heldout-1", "--out", tmp_path / "out", "--json")
    document = json.loads(done.stdout)
    assert (document["fit"], document["heldout"]) == ([1], [1])
    assert document == json.loads((tmp_path / "out" / "shard.json").read_text())


def test_mistakes_are_one_clear_line(options, shards, tmp_path, capsys, monkeypatch):
    out = ["--out", tmp_path / "out"]
    shutil.copytree(shards / "fit-1", tmp_path / "again")
    for arguments, said in (
        (["merge", shards / "fit-1", tmp_path / "again", *out], "share 1 of the fit part is in both"),
        (["merge", tmp_path, *out], "no shard.json there"),
        (["merge", shards / "fit-1", "--out", shards / "fit-1"], "add --force"),
        ([*options, "--shard", "0/3"], "expected --shard as I/N"),
        ([*options, "--shard", "4/3"], "expected --shard as I/N"),
        ([*options, "--shard", "1/2", "--keep-moments"], "merge --keep-moments"),
        ([*options, "--maps", shards / "fit"], "expected --shard with --maps"),
        ([*options, "--shard", "1/2", "--maps", shards / "fit-1", *out], "none of its shares 2: merge them first"),
        ([*options, "--shard", "1/3", "--maps", shards / "fit", *out], "another number of shards"),
        ([*options[:3], "a=x.txt", "--text", "b=y.txt", "--shard", "1/2"], "expected one text with --shard"),
        ([*options, "--layers", "0", "--pairs"], "expected all layers with --pairs"),
        ([*options, "--layers", "7", *out], "expected layers from 0 to 2"),
        ([*options, "--layers", ",", *out], "got none"),
    ):
        assert said in " ".join(fails(arguments, capsys, monkeypatch).split()), arguments
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = fails([*options, "--shard", "1/2", *out], capsys, monkeypatch)
    assert "expected --shard in a job of one process" in said
    assert not (tmp_path / "out").exists()


def test_a_shard_names_its_own_folder(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*options, "--shard", "2/2", "--json")
    assert json.loads(done.stdout)["fit"] == [2]
    assert (tmp_path / "scan-tiny-llama-fit-2-of-2" / "fit" / "state.json").is_file()
