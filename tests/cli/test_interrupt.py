"""Ctrl-C at the worst moments of a scan, in a process of its own."""

import subprocess
import sys

import pytest

import tiny

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
COMPUTING = """
import os, signal
from rectilinear.ops import scan
forward, calls = scan.forward, []
def interrupted(*arguments):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    forward(*arguments)
scan.forward = interrupted
"""


@pytest.mark.parametrize(("moment", "options"), [(WAITING, ["--tokens", "all"]), (COMPUTING, ["--tokens", "800"])])
def test_an_interrupted_scan_leaves_one_line_and_no_folder(moment, options, folder, tmp_path):
    arguments = ["scan", folder, "--text", "-", "--window", "16", "--batch-tokens", "64", "--out", tmp_path / "out"]
    with subprocess.Popen(
        [sys.executable, "-c", f"{moment}\nfrom rectilinear.cli.main import main; main()", *arguments, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdin.write("<|endoftext|>\n".join(tiny.documents()))
        process.stdin.flush()  # and stays open: there may be more to come
        code, said, complained = process.wait(timeout=120), process.stdout.read(), process.stderr.read()
    assert code == 130, complained
    assert said == ""
    assert "Traceback" not in complained and len(complained.strip().splitlines()) <= 1
    assert not list(tmp_path.iterdir())
