"""A scan that is killed and taken up again ends with the very same result."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
import torch

import tiny
from disk import flip, full_after, held
from preempted import Terminated, sigterm, terminated
from rectilinear.errors import ResultError
from rectilinear.ops import passes
from rectilinear.ops.leaving import Leaving
from rectilinear.ops.resume import Checkpoints
from rectilinear.ops.scan import scan

OPTIONS = {"window": 32, "batch_tokens": 64, "tokens": 1200, "submodules": True, "pairs": True}
KILLS = 50


def scanned(checkpoints=None, **own):
    return scan(tiny.llama(), tiny.tokenizer(), tiny.documents(), checkpoints=checkpoints, **{**OPTIONS, **own})


class Stop(Exception):
    pass


def until(tokens):
    def on_progress(state):
        if state.done >= tokens:
            raise Stop

    return on_progress


@pytest.mark.parametrize("stop", [64, 500, 896, 1000, 1150])
def test_a_scan_goes_on_from_any_batch_to_the_last_bit(stop, tmp_path):
    with pytest.raises(Stop):
        scanned(Checkpoints(tmp_path / "kept", 1, "tokens"), on_progress=until(stop), keep_moments=tmp_path / "one")
    taken = Checkpoints(tmp_path / "kept", 1, "tokens")
    assert taken.last() is not None or stop == 64
    seen = []
    again = scanned(taken, on_progress=seen.append, keep_moments=tmp_path / "two")
    whole = scanned(keep_moments=tmp_path / "whole")
    assert tiny.figures(again) == tiny.figures(whole)
    assert seen[-1].done == seen[-1].total
    kept = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()} == kept


@pytest.fixture
def one_thread():
    """A process made by fork has none of its parent's threads: torch would wait for them for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kills_at_any_moment_cost_nothing_but_time(one_thread, tmp_path):
    """Each process goes on where the one before was killed; where one got to the end, the next starts anew."""
    kept, done = tmp_path / "kept", tmp_path / "done"
    started = time.monotonic()
    whole = tiny.figures(scanned(Checkpoints(tmp_path / "whole", 1, "tokens")))
    longest = time.monotonic() - started
    moments, resumed = random.Random(0), 0
    for _ in range(KILLS):
        child = os.fork()
        if not child:
            found = scanned(Checkpoints(kept, 1, "tokens"))
            done.write_bytes(json.dumps(tiny.figures(found) == whole).encode())
            os._exit(0)
        time.sleep(moments.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if done.exists() and done.read_bytes():
            assert done.read_bytes() == b"true"
            done.unlink()
            shutil.rmtree(kept)
        resumed += Checkpoints(kept).last() is not None
    assert tiny.figures(scanned(Checkpoints(kept, 1, "tokens"))) == whole
    assert resumed > KILLS / 5


def test_the_state_of_another_scan_is_refused_and_says_what_differs(tmp_path):
    with pytest.raises(Stop):
        scanned(Checkpoints(tmp_path, 1, "tokens"), on_progress=until(500))
    with pytest.raises(ResultError, match=r"which had seed 0, not 1: remove that folder"):
        scanned(Checkpoints(tmp_path, 1, "tokens"), seed=1)
    state = Checkpoints(tmp_path).last() / "state.json"
    for content, said in (
        ('{"schema": 1, "kind": "scan state"}', "is damaged: remove"),
        ("{", r"cannot read .*state\.json: Expecting property name"),
    ):
        state.write_text(content)
        with pytest.raises(ResultError, match=said):
            scanned(Checkpoints(tmp_path, 1, "tokens"))


def test_a_flipped_bit_in_a_state_is_found_before_it_is_taken_up(tmp_path):
    kept = tmp_path / "kept"
    with pytest.raises(Stop):
        scanned(Checkpoints(kept, 1, "tokens"), on_progress=until(1000), keep_moments=tmp_path / "one")
    last = Checkpoints(kept).last()
    names = sorted(held(last))
    assert {"layer-002.safetensors", "moments/layer-000.fit.ordinary.safetensors", "spans.safetensors"} <= set(names)
    for number, name in enumerate(names):
        before = flip(last / name)
        with pytest.raises(
            ResultError, match=rf"{name} is damaged, not as it was written: remove {kept} and start|none"
        ):
            scanned(Checkpoints(kept, 1, "tokens"), keep_moments=tmp_path / f"{number}")
        (last / name).write_bytes(before)
    (last / "layer-001.safetensors").unlink()
    with pytest.raises(ResultError, match=r"layer-001\.safetensors is missing: remove"):
        scanned(Checkpoints(kept, 1, "tokens"))


def test_states_come_as_often_as_asked_and_the_last_stays(tmp_path, monkeypatch):
    written = []
    keep = Checkpoints.after

    def after(self, *arguments):
        before = self.last()
        keep(self, *arguments)
        if self.last() != before:
            written.append(self.last().name)

    monkeypatch.setattr(Checkpoints, "after", after)
    scanned(Checkpoints(tmp_path / "tokens", 400, "tokens"))
    assert len(written) == 2
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == written[-1:]
    scanned(Checkpoints(tmp_path / "minutes", 10.0))
    assert not (tmp_path / "minutes").exists()


@pytest.mark.parametrize("batch", [1, 12, 14, 15, 19])  # of 14 and 5; in the 14th the maps come before the next state
def test_a_sigterm_waits_for_the_batch_and_its_state(batch, tmp_path, monkeypatch):
    run, calls = passes.run_batch, []

    def preempted(*arguments):
        calls.append(1)
        if len(calls) == batch:
            sigterm()
        return run(*arguments)

    monkeypatch.setattr(passes, "run_batch", preempted)
    with terminated():
        scanned(Checkpoints(tmp_path, 1e9))
    assert [path.name for path in tmp_path.iterdir()] == [f"after-{batch:08}-batches"]
    again = scanned(Checkpoints(tmp_path, 1e9))
    assert len(calls) == 19
    assert tiny.figures(again) == tiny.figures(scanned())


@pytest.mark.parametrize(("apart", "kept"), [(9.0, ["after-00000001-batches"]), (11.0, [])])
def test_another_sigterm_is_the_same_one_within_seconds_and_then_heard_at_once(apart, kept, tmp_path, monkeypatch):
    """As Slurm sends one to every process of a step, and torchrun, which is one of them, another to its workers."""
    run, now = passes.run_batch, time.monotonic()

    def twice(*arguments):
        sigterm()
        monkeypatch.setattr("rectilinear.ops.leaving.time.monotonic", lambda: now + apart)
        sigterm()
        return run(*arguments)

    monkeypatch.setattr(passes, "run_batch", twice)
    monkeypatch.setattr("rectilinear.ops.leaving.time.monotonic", lambda: now)
    with terminated():
        scanned(Checkpoints(tmp_path, 1e9))
    assert [path.name for path in tmp_path.iterdir()] == kept


def test_what_cleans_up_after_a_sigterm_stays_deaf_to_another(monkeypatch):
    """As the command does: what is temporary goes, whoever signals again meanwhile."""
    before = signal.getsignal(signal.SIGTERM)

    def end(number, frame):
        signal.signal(number, signal.SIG_IGN)
        raise Terminated

    leaving = Leaving()
    try:
        signal.signal(signal.SIGTERM, end)
        with pytest.raises(Terminated), leaving.put_off():
            sigterm()
            leaving.go()
        sigterm()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sigterm_that_nothing_took_up_is_heard_in_the_end():
    with terminated(), Leaving().put_off():
        sigterm()


def test_without_states_a_sigterm_does_not_wait():
    with terminated():
        scanned(on_progress=lambda state: sigterm())


def test_a_full_disk_leaves_the_state_before(tmp_path):
    with pytest.raises(Stop):
        scanned(Checkpoints(tmp_path, 1, "tokens"), on_progress=until(500))
    before = Checkpoints(tmp_path).last()
    with full_after(2000), pytest.raises(ResultError, match="cannot write"):
        scanned(Checkpoints(tmp_path, 1, "tokens"))
    assert list(tmp_path.iterdir()) == [before]
    assert np.isfinite(scanned(Checkpoints(tmp_path, 1, "tokens")).layers[0].score.paper)
