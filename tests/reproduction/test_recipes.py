"""Every recipe of the package: it loads, and its commands are ones that a user could type."""

import click
import pytest
import typer

from rectilinear.cli.main import app
from rectilinear.reproduction.measures import MEASURES
from rectilinear.reproduction.recipe import load, names
from rectilinear.reproduction.rules import judge
from rectilinear.reproduction.runs import SCALES, Planned, planned, wanted
from rectilinear.results import UNTESTABLE

PARTS = [*(f"fig{n}" for n in range(1, 10)), *(f"table{n}" for n in range(1, 4))]


def test_there_is_a_recipe_for_every_figure_and_table():
    assert names() == PARTS


@pytest.mark.parametrize("name", PARTS)
def test_a_recipe_names_what_it_uses(name):
    recipe = load(name)
    assert recipe.measure in MEASURES
    assert set(recipe.runs) == set(SCALES)
    assert set(recipe.limits) <= set(SCALES)
    assert "arXiv 2405.12250" in recipe.source
    for claim in recipe.claims:
        assert claim.holds
        assert all(name in recipe.labels for c in (*claim.holds, *claim.needs) for name in c.names)
        assert judge(claim, {}, recipe.labels).verdict == UNTESTABLE
    assert set(recipe.published) <= set(recipe.labels)


@pytest.mark.parametrize("scale", SCALES)
def test_commands_are_taken_by_the_command_line(scale, tmp_path):
    plan = planned(scale)
    assert len({run.name for run in plan}) == len(plan)
    root = typer.main.get_command(app)
    for run in plan:
        arguments = run.filled(tmp_path, plan, "stories.txt")
        command = root.commands[arguments[0]]
        with command.make_context(arguments[0], arguments[1:], parent=click.Context(root)) as context:
            assert context.params["out"] == tmp_path / run.name
        assert not any("{" in part or "@" in part for part in arguments)


@pytest.mark.parametrize("scale", SCALES)
def test_runs_of_recipes_are_there_and_have_a_cost(scale):
    plan = planned(scale)
    used = {run.name for name in PARTS for run in wanted(plan, load(name).runs[scale])}
    assert used == {run.name for run in plan}
    for name in PARTS:
        assert set(load(name).runs[scale]) <= {run.template for run in plan}
    for run in plan:
        assert (run.minutes is not None) if scale == "smoke" else (run.flops is not None or "judge" in run.arguments)


def test_runs_bring_along_what_they_rest_on():
    needs = [run.name for run in wanted(planned("smoke"), ["eval-demo"])]
    assert needs == ["cut-none-4", "cut-linear-4", "cut-maps-4", "cut-all-4", "eval-demo"]


def test_a_template_spreads_out_over_its_variables(tmp_path, monkeypatch):
    from rectilinear.reproduction import runs

    (tmp_path / "smoke.yaml").write_text(
        "a:\n  command: scan {model} --tokens {tokens} --out {out}\n  passes: 2\n  over:\n"
        "    model: {x: {model: big/x, billions: 2}, y: {model: y, billions: 1}}\n    tokens: [10, 20]\n"
    )
    monkeypatch.setattr(runs, "HERE", tmp_path)
    found = planned("smoke")
    assert [run.name for run in found] == ["a-x-10", "a-x-20", "a-y-10", "a-y-20"]
    assert found[1].arguments == ("scan", "big/x", "--tokens", "20", "--out", "{out}")
    assert found[1].flops == 2 * 2e9 * 20
    assert isinstance(found[0], Planned)
