import json

from typer.testing import CliRunner

import commands
from rectilinear.cli.main import app
from rectilinear.report.folder import write_folder


def written(place):
    return write_folder(place, lambda f: (f / "result.json").write_text("{}"), force=False, marker="result.json")


def test_whole_folders(tmp_path):
    folders = [str(written(tmp_path / name)) for name in ("a", "b")]
    done = CliRunner().invoke(app, ["verify", *folders])
    assert done.exit_code == 0 and done.stdout.count("1 of 1 files are as they were written") == 2


def test_damage_is_named_and_fails(tmp_path, capsys, monkeypatch):
    out = written(tmp_path / "a")
    (out / "result.json").write_text("{ }")
    said = commands.fails(["verify", out], capsys, monkeypatch)
    assert "result.json: is not as it was written" in said
    done = CliRunner().invoke(app, ["verify", str(out), "--json"])
    assert json.loads(done.stdout)[str(out)] == {"whole": 0, "damaged": ["result.json: is not as it was written"]}
