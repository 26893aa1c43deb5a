"""The commands that recipes rest on, by scale, as data: `commands/smoke.yaml` and `commands/paper.yaml`."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.plainyaml import from_yaml

HERE = Path(__file__).parent / "commands"
SCALES = ("smoke", "paper")
GPU = 1e14  # FLOP/s that a GPU keeps up: a third of what an A100's data sheet promises in bfloat16


@dataclass(frozen=True)
class Planned:
    """One command to come.

    name: of its folder below RUNS; template: what recipes call it; arguments: with placeholders `{out}`, its own
    folder, `{stories}`, the text of demo:tiny, and `@TEMPLATE`, the folders of all runs of another template. minutes:
    on two cores, None where not known; flops: of its matrix products, None where not known.
    """

    name: str
    template: str
    arguments: tuple[str, ...]
    minutes: float | None
    flops: float | None

    def filled(self, folder: Path, plan: Sequence[Planned], stories: str) -> list[str]:
        """Return the arguments as the command takes them, with the runs of `plan` in `folder`."""
        found: list[str] = []
        for argument in self.arguments:
            if argument.startswith("@"):
                found += [str(folder / run.name) for run in plan if run.template == argument[1:]]
            else:
                found.append(argument.format(out=folder / self.name, stories=stories, runs=folder))
        return found


def planned(scale: str) -> list[Planned]:
    """Return all runs of a scale, a template spread out over its variables, in an order that they can run in."""
    table = from_yaml((HERE / f"{scale}.yaml").read_text(encoding="utf-8"))
    return [run for template, entry in table.items() for run in _spread(template, entry)]


def wanted(plan: Sequence[Planned], templates: Sequence[str]) -> list[Planned]:
    """Return the runs of some templates and all that these rest on, in order."""
    names = set(templates)
    while True:
        more = {a[1:] for run in plan if run.template in names for a in run.arguments if a.startswith("@")}
        more |= {other for run in plan if run.template in names for other in _after(run)}
        if more <= names:
            return [run for run in plan if run.template in names]
        names |= more


def _after(run: Planned) -> Iterator[str]:
    """Yield the templates of the runs whose folders an argument names, as {runs}/cut-none-4."""
    for argument in run.arguments:
        if argument.startswith("{runs}/"):
            yield argument.removeprefix("{runs}/").partition("/")[0].rsplit("-", 1)[0]


def _spread(template: str, entry: Mapping[str, Any]) -> Iterator[Planned]:
    common = entry.get("with", {})
    variables = [_values(name, values) for name, values in entry.get("over", {}).items()]
    for picked in itertools.product(*variables):
        given = dict(common)
        for _, values in picked:
            given |= values
        arguments = tuple(_given(part, given) for part in shlex.split(entry["command"]))
        name = "-".join([template, *(label for label, _ in picked)])
        yield Planned(name, template, arguments, entry.get("minutes"), _flops(entry, given))


def _values(name: str, values: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return labels and placeholders of a variable: a list of its values, or a mapping of labels to placeholders."""
    if isinstance(values, list):
        return [(str(value), {name: value}) for value in values]
    return [(label, given if isinstance(given, dict) else {name: given}) for label, given in values.items()]


def _given(argument: str, given: Mapping[str, Any]) -> str:
    for name, value in given.items():
        argument = argument.replace("{" + name + "}", str(value))
    return argument


def _flops(entry: Mapping[str, Any], given: Mapping[str, Any]) -> float | None:
    """Return `passes` operations for every parameter and token: 2 forward, 6 in training."""
    if "passes" not in entry or not {"billions", "tokens"} <= given.keys():
        return None
    return float(entry["passes"] * given["billions"] * 1e9 * given["tokens"])
