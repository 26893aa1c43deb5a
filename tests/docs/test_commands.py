"""Commands in the documentation name only what exists: they are parsed by the command line's own parser, not run."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main
from doc_blocks import blocks, commands, spans

import rectilinear
from rectilinear.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
COMMAND = typer.main.get_command(app)
KNOWN = {"jq", "zcat", "docker", "podman", "pipx", "torchrun", "accelerate", "git", "cd"}
LEFT_OPEN = {"MissingParameter", "BadOptionUsage"}  # what running text may leave to the reader
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def parse(words, whole=True):
    """Raise what typer says about a command line of ours; one in running text need not be whole."""
    name, *rest = words
    if name.startswith("-"):
        # Not parsed: --version and --install-completion would act at once.
        assert name in {"--help", *(option for parameter in COMMAND.params for option in parameter.opts)}, name
        return
    assert name in COMMAND.commands, f"no such command: {name}"
    try:
        COMMAND.commands[name].make_context(name, rest)
    except Exception as error:
        if type(error).__name__ not in {"Exit"} | (set() if whole else LEFT_OPEN):
            raise AssertionError(f"rectilinear {' '.join(words)}: {error}") from error


def check(words):
    """Fail where a command of a shell block names something that is not there."""
    if words[0] in {"for", "done"}:
        return
    if words[0] == "do":
        words = words[1:]
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "rectilinear":
        parse(words[1:])
    elif words[0] == "make":
        assert set(words[1:]) <= TARGETS, words
    elif words[0] in {"python", "pytest"}:
        scripts = [word for word in words[1:] if word.endswith(".py")]
        assert all((ROOT / script).is_file() for script in scripts), words
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
        assert {name for each in extras for name in each.split(",")} <= EXTRAS, words
    else:
        assert words[0] in KNOWN, f"a command that this test knows nothing about: {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for block in blocks(text):
        if block.language == "sh":
            for words in commands(block.code):
                check(words)
    for span in spans(text):
        for words in commands(span):
            if words[0] == "rectilinear" and len(words) > 1:
                parse(words[1:], whole=False)


@pytest.mark.parametrize("name", COMMAND.commands)
def test_examples_in_the_help_parse(name):
    epilog = next(panel[name][1] for panel in COMMANDS.values() if name in panel)
    lines = [line for line in epilog.splitlines() if "rectilinear " in line]
    assert len(lines) >= 2
    for words in commands("\n".join(line for line in lines if not line.startswith("for "))):
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_names_in_python_blocks_exist(page):
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "python":
            for name in re.findall(r"\brectilinear\.(\w+)", block.code):
                assert name in rectilinear.__all__ or find_spec(f"rectilinear.{name}"), name


@pytest.mark.parametrize(
    "line",
    [
        "rectilinear scam demo",
        "rectilinear scan demo --tokenz 5",
        "rectilinear scan",
        "rectilinear scan demo --window x",
        "make nothing",
        "python benchmarks/nothing.py",
        "pip install 'rectilinear[nothing]'",
        "unheard-of",
        "rectilinear --nothing",
        "rectilinear scan demo | rectilinear scam",
    ],
)
def test_a_wrong_command_is_found(line):
    with pytest.raises(AssertionError):
        for words in commands(line):
            check(words)


def test_commands_are_taken_apart():
    code = "A=1 rectilinear scan demo \\\n  --out 'a b'   # why\nrectilinear scan x --json | jq .layers && make test\n"
    assert commands(code) == [
        ["A=1", "rectilinear", "scan", "demo", "--out", "a b"],
        ["rectilinear", "scan", "x", "--json"],
        ["jq", ".layers"],
        ["make", "test"],
    ]
