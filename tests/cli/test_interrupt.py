"""Ctrl-C and SIGTERM at the worst moments of a scan and of a cut, in a process of its own."""

import subprocess
import sys

import pytest

import tiny
from preempted import MAIN, in_forward

HEARD = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started deaf
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and one under nohup too
"""
# Each interrupts itself, as the terminal would: while it waits for more text, and in the middle of a forward pass.
WAITING = """
import os, signal, threading
from rectilinear.ops import scan
cut = scan.cut_pieces
def cut_pieces(*arguments, **options):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    return cut(*arguments, **options)
scan.cut_pieces = cut_pieces
"""
COMPUTING = in_forward(2, "SIGINT")
WRITING = """
import os, signal
from rectilinear.ops import prune
save = prune.save_model
def interrupted(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGINT)
prune.save_model = interrupted
"""
REPAIRING = """
import os, signal
from rectilinear.ops import prune
repaired = prune.repaired
def interrupted(work, *arguments, **options):
    work.on_layer = lambda layer: os.kill(os.getpid(), signal.SIGINT)
    return repaired(work, *arguments, **options)
prune.repaired = interrupted
"""
SMALL = ["--window", "16", "--text", "-"]
CUT = ["--layers", "1", "--tokens", "64", "--text", "demo"]


@pytest.mark.parametrize(
    ("signal", "moment", "command", "options"),
    [
        ("SIGINT", WAITING, "scan", ["--batch-tokens", "64", "--tokens", "all"]),
        ("SIGINT", COMPUTING, "scan", ["--batch-tokens", "64", "--tokens", "800"]),
        ("SIGINT", COMPUTING, "tokens", ["--tokens", "1100", "--prompt", "w1 w2"]),
        ("SIGINT", REPAIRING, "prune", CUT),
        ("SIGINT", WRITING, "prune", CUT),
        ("SIGTERM", COMPUTING, "scan", ["--batch-tokens", "64", "--tokens", "800", "--keep-moments"]),
        ("SIGTERM", WRITING, "prune", CUT),
        ("SIGHUP", WRITING, "prune", CUT),
    ],
)
def test_an_interrupted_command_leaves_one_line_and_no_folder(signal, moment, command, options, folder, tmp_path):
    moment = moment.replace("SIGINT", signal)
    arguments = [command, folder, *SMALL, *options, "--out", tmp_path / "out"]
    with subprocess.Popen(
        [sys.executable, "-c", f"{HEARD}{moment}\n{MAIN}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdin.write("<|endoftext|>\n".join(tiny.documents()))
        process.stdin.flush()  # and stays open: there may be more to come
        code, said, complained = process.wait(timeout=120), process.stdout.read(), process.stderr.read()
    assert code == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}[signal], complained
    assert said == ""
    assert "Traceback" not in complained and len(complained.strip().splitlines()) <= 1
    assert not list(tmp_path.iterdir())
