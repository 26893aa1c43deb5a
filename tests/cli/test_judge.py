import csv
import json

import pytest
from typer.testing import CliRunner

import commands
from grader import GOOD, grader
from rectilinear.cli.main import app

pytest.importorskip("openai", reason="needs the extra judge")
HOSTILE = "w1 <script>alert(1)</script> [bold] \x1b[31m w2"


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": p}) for p in ("w1 w2", HOSTILE)))
    return path


def run(*arguments, **options):
    done = CliRunner().invoke(app, ["judge", *map(str, arguments)], **options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_a_folder_of_grades(folder, prompts, tmp_path):
    out = tmp_path / "grades"
    with grader(lambda number, body: GOOD) as (url, _):
        arguments = (folder, "--prompts", prompts, "--judge", "referee", "--base-url", url, "--tokens", 5)
        done = run(*arguments, "--repeats", 2, "--out", out, env={"COLUMNS": "100"})
    assert "grammar" in done.stdout and "8.00" in done.stdout and "within one" in done.stdout
    assert "4 requests" in done.stderr and "\x1b[31m" not in done.stdout
    document = json.loads((out / "judge.json").read_text())
    assert document["kind"] == "judge" and document["means"]["mean"]["mean"] == 6.5
    rows = list(csv.DictReader((out / "judge.csv").open()))
    assert len(rows) == 4 and rows[0]["plot"] == "5"
    page = (out / "judge.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert {path.name for path in tmp_path.iterdir()} == {"grades", "prompts.jsonl"}  # nothing else is left


def test_json(folder, prompts, tmp_path):
    with grader(lambda number, body: GOOD) as (url, _):
        arguments = (folder, "--prompts", prompts, "--judge", "referee", "--base-url", url, "--tokens", 5)
        done = run(*arguments, "--out", tmp_path / "grades", "--json")
    assert json.loads(done.stdout)["means"]["plot"]["mean"] == 5


def test_a_dry_run_asks_nobody(prompts):
    said = run("any-model", "--prompts", prompts, "--judge", "a, b", "--price", "1,2", "--dry-run").stdout
    assert (
        "4 requests" in said
        and "about $0.00" in said
        and "(the completion)" in said
        and "writes     judge-any-model" in said
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge", "referee"], "--key-env"),
        (["--judge", " , "], "--judge"),
        (["--judge", "referee", "--price", "cheap"], "--price"),
        (["--judge", "referee", "--price", "1,nan"], "--price"),
    ],
)
def test_mistakes_are_one_line(folder, prompts, tmp_path, capsys, monkeypatch, options, said):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = tmp_path / "grades"
    arguments = ["judge", folder, "--prompts", prompts, "--out", out, *options]
    assert said in commands.fails(arguments, capsys, monkeypatch)
    assert not out.exists()


def test_a_missing_extra_is_named(folder, prompts, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    said = commands.fails(
        ["judge", folder, "--prompts", prompts, "--judge", "referee", "--out", tmp_path / "g"], capsys, monkeypatch
    )
    assert "rectilinear[judge]" in said
