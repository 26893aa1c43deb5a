import json
import re
import shutil

import pytest
from typer.testing import CliRunner

import tiny
from commands import fails, loaded_by
from preempted import preempted
from rectilinear.cli.main import app
from training import STEPS, save_run

PLOTS = {f"plots/{name}.{kind}" for name in ("trace", "trace-layers") for kind in ("png", "svg")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def traced(tmp_path_factory, run, text):
    out = tmp_path_factory.mktemp("out") / "trace"
    done = trace(run, "--text", text, "--out", out)
    assert done.exit_code == 0, done.output
    assert f"Report: {out / 'trace.html'}" in done.stderr.replace("\n", "")
    return out


def trace(*arguments):
    return CliRunner().invoke(app, ["trace", *map(str, arguments), "--window", "32"])


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_trace_writes_the_whole_folder(traced):
    scan = {"result.json", "arrays.safetensors", "layers.csv", "report.html"}
    scan |= {f"plots/{name}.svg" for name in ("profile", "norms", "tails", "spectra", "carriers")}
    scans = {f"scans/step-{step}/{name}" for step in STEPS for name in scan}
    sums = {path for path in files(traced) if path.endswith("SHA256SUMS")}
    assert "SHA256SUMS" in sums
    assert files(traced) - sums == {"trace.json", "layers.csv", "trace.html"} | PLOTS | scans
    document = json.loads((traced / "trace.json").read_text())
    assert [one["step"] for one in document["checkpoints"]] == list(STEPS)
    assert document["provenance"]["command"].startswith("rectilinear")
    one = json.loads((traced / "scans" / "step-20" / "result.json").read_text())
    assert one["provenance"]["step"] == 20 and one["provenance"]["model"].endswith("checkpoint-20")
    assert one["summary"]["increment"]["heldout"] == document["checkpoints"][2]["increment"]["heldout"]


def test_json_is_the_same_document_and_writes_nothing(run, text, traced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = json.loads(trace("--checkpoints", run / "checkpoint-?", "--text", text, "--json").stdout)
    saved = json.loads((traced / "trace.json").read_text())
    assert [one["layers"] for one in document["checkpoints"]] == [one["layers"] for one in saved["checkpoints"][:2]]
    assert not list(tmp_path.iterdir())


def test_options_reach_the_scans(run, text, tmp_path):
    options = {"holdout": 0.5, "sink_multiple": 3.0, "seed": 4, "dtype": "bfloat16", "layers_path": "model.layers"}
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    out = tmp_path / "out"
    done = trace(run, "--text", text, *given, "--tokens", 800, "--batch-tokens", 64, "--device", "cpu", "--out", out)
    assert done.exit_code == 0, done.output
    facts = json.loads((out / "trace.json").read_text())["provenance"]
    assert {name: facts[name] for name in options} == options
    assert facts["tokens"] == 800 and facts["tokens_fit"] == 400
    scan = json.loads((out / "scans" / "step-4" / "result.json").read_text())["provenance"]
    assert (scan["dtype"], scan["seed"], scan["sink_multiple"], scan["device"]) == ("bfloat16", 4, 3.0, "cpu")


def test_an_interrupted_trace_goes_on(run, text, traced, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, kept = tmp_path / "trace-run", []
    keep = "rectilinear.results.TraceResult.keep"

    def interrupted(result, scan, out, **options):
        from rectilinear.report.trace import keep_scan

        if kept:
            raise KeyboardInterrupt
        kept.append(scan)
        keep_scan(result, scan, out, **options)

    with monkeypatch.context() as patched:
        patched.setattr(keep, interrupted)
        stopped = trace(run, "--text", text)
    assert stopped.exit_code == 130
    assert "1 of 4 checkpoints are scanned and kept in" in stopped.stderr
    assert {path.name for path in out.iterdir()} == {"scans", "trace.json", "SHA256SUMS"}
    assert [path.name for path in (out / "scans").iterdir()] == ["step-0"]
    first = (out / "scans" / "step-0" / "result.json").stat().st_mtime_ns
    done = trace(run, "--text", text, "--resume")
    assert done.exit_code == 0, done.output
    assert files(out) == files(traced)
    assert (out / "scans" / "step-0" / "result.json").stat().st_mtime_ns == first
    assert trace(run, "--text", text, "--resume").exit_code == 0  # nothing is left to do


def test_a_trace_that_is_preempted_in_its_first_scan_goes_on(run, text, tmp_path):
    out = tmp_path / "trace"
    arguments = [run, "--text", text, "--out", out, "--batch-tokens", "64"]
    stopped = preempted("trace", *arguments, "--window", "32")
    assert stopped.returncode == 143
    assert (
        stopped.stderr == f"What the first scan has gathered is kept in {tmp_path / '.trace.partial'}: "
        "go on with --resume\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [".trace.partial"]
    for _ in range(2):
        assert trace(*arguments, "--resume").exit_code == 0
        assert [path.name for path in tmp_path.iterdir()] == ["trace"]
        (tmp_path / ".trace.partial" / "step-100").mkdir(parents=True)  # a kill came after the scan was kept


def test_resume_starts_where_there_is_nothing_and_force_starts_again(run, text, tmp_path):
    some = ["--checkpoints", run / "checkpoint-?", "--text", text, "--out", tmp_path / "out"]
    for options in (["--resume"], ["--force"]):
        assert trace(*some, *options).exit_code == 0
        assert len(json.loads((tmp_path / "out" / "trace.json").read_text())["checkpoints"]) == 2


def test_report_draws_a_trace_again_without_torch(traced, tmp_path):
    folder = shutil.copytree(traced, tmp_path / "trace")
    for name in ("layers.csv", "trace.html", "plots"):
        shutil.rmtree(folder / name) if name == "plots" else (folder / name).unlink()
    assert not {"torch", "transformers", "datasets", "matplotlib"} & loaded_by(["report", folder])
    assert files(folder) == {name for name in files(traced) if not name.startswith("plots") or name.endswith("svg")}
    done = CliRunner().invoke(app, ["report", str(folder / "trace.json"), "--png", "--json"])
    assert json.loads(done.stdout) == json.loads((traced / "trace.json").read_text())
    assert files(folder) == files(traced)


def test_a_dry_run_lists_checkpoints_and_writes_nothing(run, traced, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(traced, tmp_path / "trace-run")
    before = files(tmp_path)
    said = trace(run, "--text", text, "--tokens", "1200", "--dry-run", "--resume").stdout
    assert "checkpoint-20 (scanned already)" in said
    assert re.search(r"in all +0 x 1,200 = 0 tokens", said)
    said = trace(run, "--text", text, "--tokens", "1200", "--dry-run", "--out", "new").stdout
    assert re.search(r"in all +4 x 1,200 = 4,800 tokens", said)
    assert re.search(r"time +at least \d+ s", said) and re.search(r"layers +3 of width 32", said)
    document = json.loads(trace(run, "--text", text, "--tokens", "all", "--dry-run", "--json").stdout)
    assert [one["name"] for one in document["checkpoints"]] == [f"checkpoint-{step}" for step in STEPS]
    assert document["scan"]["layers"] == 3 and document["seconds"] is document["out"] is None
    assert files(tmp_path) == before


def test_help_comes_at_once():
    assert not {"torch", "transformers", "datasets", "numpy", "matplotlib", "jinja2"} & loaded_by(["trace", "--help"])


def test_wrong_input_is_one_line_and_exit_code_2(run, text, traced, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", lambda self, model: 1 / 0)
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "checkpoint-100" / "model.safetensors").unlink()
    short = shutil.copytree(run, tmp_path / "short")
    (short / "checkpoint-20" / "model.safetensors").write_bytes(b"short")
    shards = shutil.copytree(run, tmp_path / "shards")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (shards / "checkpoint-4" / "model.safetensors.index.json").write_text(json.dumps(index))
    mixed = shutil.copytree(run, tmp_path / "mixed")
    other = tiny.tokenizer()
    other.add_tokens([f"w{i} " for i in range(1, 99)])
    other.save_pretrained(mixed / "checkpoint-20")
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").touch()
    new = ["--text", text, "--window", "32", "--out", tmp_path / "new"]
    cases = [
        ([broken, *new], r"expected weights \(\*.safetensors\) in .*checkpoint-100, got none"),
        ([short, *new], "cannot read the weights of .*checkpoint-20"),
        ([shards, *new], r"checkpoint-4, got 0: no model-1\.safetensors"),
        ([mixed, *new], "checkpoint-0 and checkpoint-20, which cut the text"),
        ([there, *new], "no checkpoint-STEP folders"),
        (["--checkpoints", f"{run}/step-*", *new], "no folder matches"),
        ([*new], "got none"),
        (["org/model", *new], "needs --revisions"),
        (["org/model", "--revisions", "step7", *new], "cannot find the model 'org/model'"),
        (["org/model", "--revisions", "pythia:1", *new], "N from 2 to 154"),
        (["demo:tino", *new], "Did you mean 'demo:tiny'"),
        ([run, "--text", text, "--out", traced], "exists; add --force"),
        ([run, "--text", text, "--out", there, "--force"], r"holds no trace\.json"),
        ([run, "--text", text, "--out", there, "--resume"], r"no trace\.json there"),
        ([run, "--text", text, "--out", traced, "--resume"], "window 512, which was 32"),
        ([run, "--text", text, "--out", traced, "--resume", "--force"], "got both"),
        ([run, "--text", tmp_path / "gone.txt"], "got neither"),
        ([run, "--tokens", "many"], "--tokens"),
    ]
    for arguments, expected in cases:
        said = fails(["trace", *arguments], capsys, monkeypatch)
        assert re.search(expected, said), (arguments, said)
        assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
