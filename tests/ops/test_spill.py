import errno
import gc
import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import rectilinear
import tiny
from rectilinear.cli.main import app
from rectilinear.core.moments import Moments
from rectilinear.ops.forecast import forecast
from rectilinear.ops.spill import Spill

MAPS = Path("/proc/self/maps")
mapped = pytest.mark.skipif(not MAPS.exists(), reason="needs /proc to see what is mapped")


@pytest.fixture(scope="module")
def model():
    return tiny.massive(initializer_range=0.15, num_hidden_layers=4)


def files(folder):
    """Return the sizes of the files in a folder that are mapped into this process."""
    lines = [line for line in MAPS.read_text().splitlines() if str(folder) in line]
    return [int(end, 16) - int(start, 16) for start, end in (line.split()[0].split("-") for line in lines)]


def scanned(model, **options):
    return rectilinear.scan(model, tiny.tokenizer(), tiny.documents(80), window=32, batch_tokens=256, **options)


@mapped
@pytest.mark.parametrize("options", [{}, {"submodules": True}, {"holdout": 0}, {"layers": "1-2"}], ids=str)
def test_a_scan_with_its_moments_in_files_has_the_same_figures(model, tmp_path, options):
    seen = []
    result = scanned(model, spill=Spill(0, tmp_path), on_gathered=lambda _: seen.append(files(tmp_path)), **options)
    assert tiny.figures(result) == tiny.figures(scanned(model, **options))
    layers = 2 if "layers" in options else 4
    # Two products of ordinary tokens a layer and part, and two of sinks where there are any; one of the last outputs.
    assert len(seen[0]) >= layers * 2 * (3 if "submodules" in options else 1) + 1
    gc.collect()
    assert not files(tmp_path) and not list(tmp_path.iterdir())


@mapped
def test_what_has_room_stays_in_memory(model, tmp_path):
    d = model.config.hidden_size
    two_layers = 2 * 2 * 8 * d * d / 2**30
    seen = []
    scanned(model, spill=Spill(two_layers, tmp_path), on_gathered=lambda _: seen.append(len(files(tmp_path))))
    everything = []
    scanned(model, spill=Spill(0, tmp_path), on_gathered=lambda _: everything.append(len(files(tmp_path))))
    assert seen[0] == everything[0] - 4


@mapped
def test_moments_are_moved_once_and_their_file_goes_with_them(tmp_path):
    spill, moments = Spill(0, tmp_path), Moments.empty(40, 40)
    x = torch.randn(100, 40, generator=torch.Generator().manual_seed(0))
    moments.update(x, x.flip(0))
    expected = moments.copy()
    for _ in range(2):
        spill.hold(moments)
        spill.release()
    assert len(files(tmp_path)) == 2
    for name, values in expected.sums().items():
        assert torch.equal(moments.sums()[name], values), name
    del moments
    gc.collect()
    spill.hold(Moments.empty(0, 0))
    assert not files(tmp_path)


def test_a_forecast_tells_what_goes_to_files(model):
    told = forecast(model, tokens=2000, moments_memory=0)
    d = model.config.hidden_size
    held = (4 * 2 + 1) * 8 * d * d  # two products a layer, and one of the last outputs
    assert held <= told.spilled_bytes <= 1.1 * held < told.spilled_bytes_most
    assert forecast(model, tokens=2000, moments_memory=1).spilled_bytes_most == 0


def test_a_full_disk_is_one_line_and_nothing_stays(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(rectilinear.ResultError, match=r"cannot keep moments in .*: No space left on device"):
        scanned(model, spill=Spill(0, tmp_path))
    assert not list(tmp_path.iterdir())


def test_moments_on_a_gpu_are_not_moved(model, tmp_path, monkeypatch):
    monkeypatch.setattr(type(model), "device", property(lambda self: torch.device("cuda", 0)))
    with pytest.raises(rectilinear.ModelError, match=r"expected a model on the CPU with a bound .* got it on cuda"):
        scanned(model, spill=Spill(0, tmp_path))
    with pytest.raises(rectilinear.ModelError, match="got it on balanced"):
        forecast(model, moments_memory=1, device="balanced")


def test_the_command_bounds_the_memory_of_whole_scans_and_of_shards(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    text = tmp_path / "docs.jsonl"
    text.write_text("\n".join(json.dumps({"text": words}) for words in tiny.documents(80)))
    common = [str(tmp_path / "model"), "--text", str(text), "--window", "32", "--batch-tokens", "256"]

    def run(*arguments):
        done = CliRunner().invoke(app, ["scan", *common, *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.stdout

    whole = json.loads(run("--json"))
    bounded = json.loads(run("--json", "--moments-memory", 0, "--out", tmp_path / "new" / "bounded"))
    assert bounded["layers"] == whole["layers"]
    resumed = json.loads(
        run("--json", "--moments-memory", 0, "--out", tmp_path / "b", "--checkpoint-every", "500tokens")
    )
    assert resumed["layers"] == whole["layers"]
    run("--shard", "1/1", "--out", tmp_path / "fit", "--moments-memory", 0)
    maps = ("--maps", tmp_path / "fit", "--shard", "1/1", "--moments-memory", 0)
    run(*maps, "--out", tmp_path / "heldout")
    merged = ["merge", str(tmp_path / "fit"), str(tmp_path / "heldout"), "--out", str(tmp_path / "merged"), "--json"]
    done = CliRunner().invoke(app, merged)
    assert done.exit_code == 0, done.output
    ours = [layer["score"] for layer in json.loads(done.stdout)["layers"]]
    for mine, theirs in zip(ours, [layer["score"] for layer in whole["layers"]], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)
    told = run("--dry-run", "--moments-memory", 0)
    assert "in files" in told and "in files" not in run("--dry-run")
