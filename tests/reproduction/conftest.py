"""A recipe on tiny models in place of the package's own, and the command that carries it out."""

import json

import pytest
from typer.testing import CliRunner

import tiny
from rectilinear.cli.main import app
from rectilinear.reproduction import recipe, runs

RECIPE = """
title: A <b>tiny</b> figure
source: nowhere
measure: linearity
runs: {smoke: [one], paper: []}
values:
  score_mean: {label: mean score, paper: 0.99}
  models: number of models
claims:
  - says: There is a model, [bold]bold[/].
    holds: [models >= 1]
  - says: Its score is a score no more.
    holds: [score_mean > 2]
  - says: There are many.
    needs: [models >= 5]
    holds: [score_mean > 0.9]
limits:
  smoke: One is not many.
"""


@pytest.fixture
def recipes(tmp_path, monkeypatch, folder):
    """Two recipes over one run: `tiny-a` of the run alone, `tiny-b` of another that fails as well."""
    text = tmp_path / "docs.jsonl"
    text.write_text("\n".join(json.dumps({"text": t}) for t in tiny.documents()))
    here = tmp_path / "recipes"
    here.mkdir()
    (here / "tiny-a.yaml").write_text(RECIPE)
    (here / "tiny-b.yaml").write_text(RECIPE.replace("[one]", "[one, broken]"))
    commands = tmp_path / "commands"
    commands.mkdir()
    scan = f"scan {folder} --text {text} --window 32 --out {{out}}"
    (commands / "smoke.yaml").write_text(
        f"one:\n  command: {scan}\n  minutes: 0.1\nbroken:\n  command: scan {tmp_path}/gone --out {{out}}\n"
    )
    (commands / "paper.yaml").write_text("one:\n  command: scan demo --out {out}\n")
    monkeypatch.setattr(recipe, "HERE", here)
    monkeypatch.setattr(runs, "HERE", commands)
    return here


@pytest.fixture
def reproduce():
    """Return a function that invokes the command."""

    def invoke(*arguments):
        return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])

    return invoke
