"""What a command says, and leaves, when the machine or another process gets in its way."""

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import disk
import rectilinear.cli as cli
import tiny
from commands import fails
from preempted import preempted
from rectilinear.cli.console import Console
from rectilinear.cli.main import app, main
from rectilinear.cli.options import interval
from rectilinear.cli.progress import progress_bar
from rectilinear.ops.scan import scan
from rectilinear.report.folder import save

HOLDER = "import sys; from pathlib import Path; from rectilinear.report.lock import locked\n"
HOLDER += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def held(tmp_path):
    """A folder that another process is writing."""
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield out
        process.communicate("")


@pytest.mark.parametrize(
    "command",
    [
        ["scan", "MODEL", "--text", "TEXT", "--out", "OUT"],
        ["tokens", "MODEL", "--prompt", "w1", "--text", "TEXT", "--out", "OUT"],
        ["trace", "RUN", "--text", "TEXT", "--out", "OUT"],
        ["delta", "MODEL", "MODEL", "--text", "TEXT", "--out", "OUT"],
        ["probe", "MODEL", "--task", "TASK", "--out", "OUT"],
        ["prune", "MODEL", "--layers", "1", "--text", "TEXT", "--out", "OUT"],
        ["pretrain", "OUT", "--text", "TEXT"],
        ["eval", "MODEL", "--text", "TEXT", "--out", "OUT"],
    ],
)
def test_two_processes_do_not_write_one_folder(command, held, folder, text, tmp_path, capsys, monkeypatch):
    places = {"MODEL": folder, "TEXT": text, "RUN": tmp_path, "TASK": "boolq", "OUT": held}
    said = fails([places.get(word, word) for word in command], capsys, monkeypatch)
    assert said == f"error: another process is writing {held}: wait for it, or choose another --out\n"


@pytest.fixture(scope="module")
def made(folder, text, tmp_path_factory):
    """What other commands read: a scan, a shard, a cut model, labelled texts and prompts."""
    root = tmp_path_factory.mktemp("made")
    read = [str(folder), "--text", str(text), "--window", "32"]
    for command in (
        ["scan", *read, "--tokens", "400", "--out", str(root / "scan")],
        ["scan", *read, "--shard", "1/2", "--out", str(root / "shard")],
        ["prune", *read, "--layers", "1", "--repair", "none", "--out", str(root / "cut")],
    ):
        assert CliRunner().invoke(app, command).exit_code == 0
    rows = [{"text": f"w{1 + n % 2} {line}", "label": n % 2} for n, line in enumerate(tiny.documents(40, words=6))]
    (root / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "prompts.jsonl").write_text(json.dumps({"prompt": "w1 w2"}))
    return root


@pytest.mark.parametrize(
    "command",
    [
        "heal MADE/cut --text TEXT --out OUT",
        "finetune MODEL --task MADE/own.jsonl --text TEXT --out OUT",
        "judge MODEL --prompts MADE/prompts.jsonl --judge referee --base-url http://127.0.0.1:9 --out OUT",
        "reproduce fig1 --out OUT",
        "merge MADE/shard --out OUT",
        "compare MADE/scan MADE/scan --out OUT",
        "report OUT",
        "prune MODEL --sweep 0:1 --text TEXT --out OUT",
    ],
)
def test_nor_do_two_of_the_other_commands(command, held, made, folder, text, capsys, monkeypatch):
    if command.startswith("report"):
        shutil.copytree(made / "scan", held)
    places = {"MADE": made, "MODEL": folder, "TEXT": text, "OUT": held}
    words = [re.sub("[A-Z]{3,}", lambda found: str(places[found[0]]), word) for word in command.split()]
    said = fails(words, capsys, monkeypatch)
    assert said == f"error: another process is writing {held}: wait for it, or choose another --out\n"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no /sys, in which nobody makes folders")
@pytest.mark.parametrize(
    "command",
    [
        ["scan", "MODEL", "--text", "TEXT", "--tokens", "400", "--window", "32", "--out", "OUT"],
        ["tokens", "MODEL", "--prompt", "w1", "--text", "TEXT", "--tokens", "400", "--window", "32", "--out", "OUT"],
        ["trace", "RUN", "--text", "TEXT", "--out", "OUT"],
        ["prune", "MODEL", "--layers", "1", "--text", "TEXT", "--out", "OUT"],
        ["pretrain", "OUT", "--text", "TEXT"],
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(command, folder, text, tmp_path, capsys, monkeypatch):
    places = {"MODEL": folder, "TEXT": text, "RUN": tmp_path, "OUT": Path("/sys/out")}
    said = fails([places.get(word, word) for word in command], capsys, monkeypatch)
    assert said == "error: cannot write /sys/out: Permission denied\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rectilinear", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_nohup_is_respected():
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom rectilinear.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_text_from_data_cannot_drive_the_terminal(tmp_path):
    """Every string of a result, and a folder's name, holds what clears a screen, renames a window and turns text."""
    evil = "\x1b[2J\x1b]0;owned\x07\r\u202e"
    folder = tmp_path / f"scan{evil}"
    result = scan(tiny.llama(), tiny.tokenizer(), tiny.documents(), window=32, provenance={"model": f"org/{evil}"})
    save(replace(result, warnings=(f"Look: {evil}",)), folder)
    for arguments in (["report", folder], ["compare", folder, folder, "--out", tmp_path / f"both{evil}"]):
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0
        assert not set(evil) & set(re.sub(r"\x1b\[[0-9;]*m", "", done.output)) - set("[2J]0;owned")
        assert "\\x1b[2J" in done.output


def test_an_error_cannot_drive_the_terminal(tmp_path, capsys, monkeypatch):
    said = fails(["report", tmp_path / "no\x1b[2J"], capsys, monkeypatch)
    assert "no\\x1b[2J" in said.replace("\n", "") and "\x1b" not in said


def test_a_fault_of_the_program_cannot_drive_the_terminal(capsys, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("one\nline\x1b]0;owned\x07\r\u202e")

    monkeypatch.setattr("rectilinear.report.folder.load", broken)
    monkeypatch.setattr(sys, "argv", ["rectilinear", "compare", "a", "b"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert said.startswith("Traceback") and said.endswith("ZeroDivisionError: one\nline\\x1b]0;owned\\x07\\r\\u202e\n")


def test_every_command_prints_through_the_console_that_escapes():
    for source in Path(cli.__file__).parent.glob("*.py"):
        assert source.name == "console.py" or "from rich.console import Console\n" not in source.read_text(), source


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_does_not_stop_the_bar(jump):
    seconds = itertools.chain(map(float, range(40)), itertools.count(40 + jump))
    console = Console(file=io.StringIO(), force_terminal=True, width=120, get_time=lambda: next(seconds))
    with progress_bar(console) as show:
        for done in range(0, 1000, 10):
            show("scanning", done, 1000, "")
    assert "scanning" in console.file.getvalue()


def test_a_scan_that_is_preempted_goes_on_to_the_same_result(folder, text, tmp_path, capsys, monkeypatch):
    small = ["scan", folder, "--text", text, "--window", "16", "--batch-tokens", "64", "--tokens", "800"]
    out = tmp_path / "out"
    kept = [*map(str, small), "--out", str(out), "--checkpoint-every", "10min"]  # but what the SIGTERM itself asks for
    done = preempted(*kept)
    assert done.returncode == 143
    assert done.stderr == f"What was gathered is kept in {tmp_path / '.out.partial'}: go on with --resume\n"
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    assert "add --resume to go on, or --force to start again" in fails(kept, capsys, monkeypatch)
    assert CliRunner().invoke(app, [*kept, "--resume"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert CliRunner().invoke(app, [*map(str, small), "--out", str(tmp_path / "whole")]).exit_code == 0
    again, whole = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("out", "whole"))
    for result in (again, whole):
        for name in ("time", "seconds", "command"):
            del result["provenance"][name]
    assert again == whole
    assert (out / "arrays.safetensors").read_bytes() == (tmp_path / "whole" / "arrays.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--checkpoint-every", "soon"], "expected minutes or tokens, as 10min or 5_000_000tokens, got 'soon'"),
        (["--checkpoint-every", "0"], "expected minutes or tokens"),
        (["--resume", "--json"], "expected --out with --json"),
    ],
)
def test_what_cannot_be_kept_on_the_way_is_said(options, said, folder, text, capsys, monkeypatch):
    assert said in fails(["scan", folder, "--text", text, *options], capsys, monkeypatch)


@pytest.mark.parametrize("more", [["--shard", "1/1"], ["--text", "two={text}"]])
def test_shares_and_several_texts_go_on_too(more, folder, text, tmp_path, capsys, monkeypatch):
    named = f"one={text}" if "--text" in more else str(text)
    small = [
        "scan",
        folder,
        "--text",
        named,
        *(word.format(text=text) for word in more),
        "--window",
        "16",
        "--batch-tokens",
        "64",
    ]
    out = tmp_path / "out"
    kept = [*map(str, small), "--tokens", "800", "--out", str(out), "--checkpoint-every", "1tokens"]
    done = preempted(*kept)
    assert done.returncode == 143
    assert done.stderr == f"What was gathered is kept in {tmp_path / '.out.partial'}: go on with --resume\n"
    assert "add --resume to go on, or --force to start again" in fails(kept, capsys, monkeypatch)
    assert CliRunner().invoke(app, [*kept, "--resume"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("value", "found"),
    [("10", (10.0, "minutes")), ("0.5min", (0.5, "minutes")), ("5_000_000tokens", (5e6, "tokens"))],
)
def test_intervals(value, found):
    assert interval(value) == found


def test_a_command_to_resume_may_be_given_again_when_it_is_done(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = ["scan", "demo:tiny", "--tokens", "2048", "--out", str(out), "--resume"]

    def given(*more):
        monkeypatch.setattr(sys, "argv", ["rectilinear", *arguments, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr()

    assert "Report:" in given().err
    before = disk.held(out)
    (tmp_path / ".out.partial" / "after-00000001-batches").mkdir(parents=True)  # a kill came before it was taken away
    assert given().err == f"{out} is done, by this command: nothing is left to do\n"
    assert given("--json").out == (out / "result.json").read_text()
    assert disk.held(out) == before and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "exists; add --force" in fails([*arguments, "--seed", "1"], capsys, monkeypatch)
    assert "exists; add --force" in fails(arguments[:-1], capsys, monkeypatch)
