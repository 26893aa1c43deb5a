import json

import pytest

from commands import fails, loaded_by
from pages import Seen
from rectilinear.cli import reproduce as command
from rectilinear.report.checksums import verify
from rectilinear.results import FAILS, HOLDS, UNTESTABLE
from training import save_run


def document(out):
    return json.loads((out / "report" / "reproduction.json").read_text())


def verdicts(part):
    return [one["verdict"] for one in part["verdicts"]]


def test_a_part_is_run_measured_judged_and_written(recipes, reproduce, tmp_path):
    out = tmp_path / "out"
    done = reproduce("tiny-a", "--out", out)
    assert done.exit_code == 0, done.output
    assert "1 to go, about 6 s: rectilinear scan" in done.stderr
    assert "1 holds, 1 does not hold, 1 cannot be tested" in done.stdout
    found = document(out)
    assert found["provenance"]["scale"] == "smoke"
    [part] = found["parts"]
    assert verdicts(part) == [HOLDS, FAILS, UNTESTABLE]
    assert part["verdicts"][2]["reason"] == "Number of models: 1, asked for at least 5. One is not many."
    rows = {row["name"]: row for row in part["rows"]}
    scan = json.loads((out / "runs" / "one" / "result.json").read_text())
    assert rows["score_mean"]["measured"]["mean"] == scan["summary"]["score"]["paper"]
    assert rows["score_mean"]["paper"]["mean"] == 0.99
    assert scan["provenance"]["command"] == part["runs"][0]["command"]
    report = out / "report"
    files = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    plots = {"plots/tiny-a.svg", "plots/tiny-a.png"}
    tables = {"verdicts.csv", "values.csv"}
    assert files == {"reproduction.json", "reproduction.html", "SHA256SUMS", *plots, *tables}
    assert verify(report) == (1, [])
    assert verify(out) == (4, [])  # with the log of runs, and what the run wrote


def test_the_page_shows_all_and_escapes(recipes, reproduce, tmp_path):
    out = tmp_path / "out"
    assert reproduce("tiny-a", "--out", out).exit_code == 0
    page = (out / "report" / "reproduction.html").read_text()
    seen = Seen(page)
    assert len(seen.ids) == len(set(seen.ids))
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert "A &lt;b&gt;tiny&lt;/b&gt; figure" in page
    for words in ("does not hold", "not testable", "0.9900", "mean score", "rectilinear scan"):
        assert words in page
    assert "figure-tiny-a" in seen.ids


def test_what_is_finished_is_not_run_again(recipes, reproduce, tmp_path, monkeypatch):
    out, calls, real = tmp_path / "out", [], command._call
    monkeypatch.setattr(command, "_call", lambda arguments: (calls.append(arguments), real(arguments)))
    assert reproduce("tiny-a", "--out", out).exit_code == 0
    assert reproduce("tiny-a", "--out", out, "--resume").exit_code == 0
    assert len(calls) == 1
    commands = tmp_path / "commands" / "smoke.yaml"
    commands.write_text(commands.read_text().replace("--window 32", "--window 16"))
    assert reproduce("tiny-a", "--out", out, "--resume").exit_code == 0
    assert len(calls) == 2 and calls[1][-1] == "--force"  # another command's folder is replaced
    assert reproduce("tiny-a", "--out", out, "--force").exit_code == 0
    assert len(calls) == 3


def test_what_rests_on_a_run_that_is_made_again_is_made_again_too(recipes, reproduce, tmp_path, monkeypatch):
    out, calls, real = tmp_path / "out", [], command._call
    commands = tmp_path / "commands" / "smoke.yaml"
    commands.write_text(commands.read_text() + "both:\n  command: compare @one {runs}/one --out {out}\n")
    (recipes / "tiny-c.yaml").write_text((recipes / "tiny-a.yaml").read_text().replace("[one]", "[one, both]"))
    monkeypatch.setattr(command, "_call", lambda arguments: (calls.append(arguments[0]), real(arguments)))
    assert reproduce("tiny-c", "--out", out).exit_code == 0
    assert reproduce("tiny-c", "--out", out, "--resume").exit_code == 0
    assert calls == ["scan", "compare"]
    commands.write_text(commands.read_text().replace("--window 32", "--window 16"))
    assert reproduce("tiny-a", "--out", out, "--resume").exit_code == 0
    assert calls == ["scan", "compare", "scan"]
    assert reproduce("tiny-c", "--out", out, "--resume").exit_code == 0
    assert calls == ["scan", "compare", "scan", "compare"]


def test_an_interrupted_command_goes_on_where_it_can(recipes, reproduce, folder, tmp_path, monkeypatch):
    run = save_run(tmp_path / "run", steps=(1, 2))
    commands = tmp_path / "commands" / "smoke.yaml"
    text = tmp_path / "docs.jsonl"
    commands.write_text(f"one:\n  command: trace {run} --text {text} --window 32 --out {{out}}\n")
    out, real, calls = tmp_path / "out", command._call, []

    def interrupted(arguments):
        real(arguments)  # its folder is there, and yet it was not seen to end
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "_call", interrupted)
        assert reproduce("tiny-a", "--out", out).exit_code == 130
    monkeypatch.setattr(command, "_call", lambda arguments: (calls.append(arguments[-1]), real(arguments)))
    assert reproduce("tiny-a", "--out", out, "--resume").exit_code == 0
    commands.write_text(commands.read_text().replace("--window 32", "--window 16"))
    assert reproduce("tiny-a", "--out", out, "--resume").exit_code == 0
    assert calls == ["--resume", "--force"]


def test_a_run_that_fails_leaves_the_others_standing(recipes, reproduce, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    done = reproduce("all", "--out", out)
    assert done.exit_code == 0, done.output
    first, second = document(out)["parts"]
    assert verdicts(first) == [HOLDS, FAILS, UNTESTABLE]
    assert "broken failed: no such model folder or file" in second["verdicts"][2]["reason"]
    assert [run["name"] for run in second["runs"]] == ["one"]
    # Asked for alone, its error is the command's.
    said = fails(["reproduce", "tiny-b", "--out", out, "--resume"], capsys, monkeypatch)
    assert "no such model folder or file" in said


def test_parts_are_added_to_a_report(recipes, reproduce, tmp_path):
    out = tmp_path / "out"
    (recipes / "tiny-c.yaml").write_text((recipes / "tiny-a.yaml").read_text())
    assert reproduce("tiny-c", "--out", out).exit_code == 0
    assert reproduce("tiny-a", "--out", out, "--resume").exit_code == 0
    assert [part["name"] for part in document(out)["parts"]] == ["tiny-a", "tiny-c"]


def test_an_interrupt_says_how_to_go_on(recipes, reproduce, tmp_path, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_call", interrupted)
    stopped = reproduce("tiny-a", "--out", tmp_path / "out")
    assert stopped.exit_code == 130
    assert "0 runs are finished and kept in" in stopped.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"runs", "runs.json"}
    monkeypatch.undo()


def test_a_dry_run_prints_the_commands_and_writes_nothing(recipes, reproduce, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = reproduce("tiny-a", "--dry-run", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "rectilinear scan" in done.stdout and "1 of 1 commands, about 6 s on two slow cores" in done.stdout
    told = json.loads(reproduce("tiny-a", "--dry-run", "--json", "--out", tmp_path / "out").stdout)
    assert [run["name"] for run in told["runs"]] == ["one"] and told["minutes"] == 0.1
    assert sorted(tmp_path.rglob("*")) == before
    assert reproduce("tiny-a", "--out", tmp_path / "out").exit_code == 0
    assert "# finished" in reproduce("tiny-a", "--dry-run", "--out", tmp_path / "out").stdout


def test_json_is_the_document(recipes, reproduce, tmp_path):
    done = reproduce("tiny-a", "--json", "--out", tmp_path / "out")
    assert json.loads(done.stdout) == document(tmp_path / "out")


def test_report_draws_it_again(recipes, reproduce, tmp_path):
    report = tmp_path / "out" / "report"
    assert reproduce("tiny-a", "--out", tmp_path / "out").exit_code == 0
    pages = {name: (report / name).read_text() for name in ("reproduction.html", "values.csv", "plots/tiny-a.svg")}
    for name in pages:
        (report / name).unlink()
    assert not {"torch", "transformers", "matplotlib"} & loaded_by(["report", report])
    assert {name: (report / name).read_text() for name in pages} == pages


def test_wrong_requests_are_one_line(recipes, reproduce, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert reproduce("tiny-a", "--out", out).exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    cases = [
        (["tiny-aa"], "Did you mean 'tiny-a'?"),
        ([], "expected parts like fig1"),
        (["tiny-a", "--out", out], "--force"),
        (["tiny-a", "--out", out, "--force", "--resume"], "got both"),
        (["tiny-a", "--out", out, "--resume", "--scale", "paper"], "expected a reproduction at scale paper"),
        (["tiny-a", "--out", tmp_path / "other", "--force"], "holds no runs.json"),
    ]
    for arguments, expected in cases:
        said = fails(["reproduce", *arguments], capsys, monkeypatch)
        assert expected in said, (arguments, said)
        assert len(said.strip().splitlines()) == 1
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]


def test_a_damaged_log_is_named(recipes, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "runs.json").write_text("{")
    said = fails(["reproduce", "tiny-a", "--out", tmp_path / "out", "--resume"], capsys, monkeypatch)
    assert "cannot read" in said and "--force" in said


@pytest.mark.parametrize("arguments", [["--list"], ["fig1", "--dry-run"], ["--help"]])
def test_lists_and_dry_runs_load_no_torch(arguments):
    assert not {"torch", "transformers", "matplotlib"} & loaded_by(["reproduce", *arguments])


def test_the_list_names_parts_and_claims(reproduce):
    said = reproduce("--list").stdout
    assert "fig1 " in said and "table3" in said
    assert "The score of decoders is 0.99 in the mean" in said
