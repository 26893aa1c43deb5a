"""Every shell block of the documentation runs, on stand-ins: small models, short texts, small budgets.

A block that cannot run here says why on the line before it: `<!-- not run: ... -->`. Those below `<!-- run -->` are
cells of the tour's notebook, which has a test of its own.
"""

import gzip
import itertools
import re
import sys
from pathlib import Path

import pytest
import typer.main
from doc_blocks import blocks, commands

from rectilinear.cli.main import app, main
from rectilinear.errors import ModelError
from rectilinear.models.siblings import default_text, sibling_checkpoints

COMMAND = typer.main.get_command(app)
ROOT = Path(__file__).parents[2]
TOUR, JAPANESE = (ROOT / "docs" / name for name in ("tour.md", "tour.ja.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*ROOT.glob("docs/*.md")} - {JAPANESE})]
NOT_RUN = re.compile(r"<!-- not run: .{10,} -->\n$")
MODELS = {name: "demo:tiny" for name in ("demo", "my-model", "base", "HuggingFaceTB/SmolLM2-135M")}
MODELS |= {"instruct": "demo:tiny-cosine", "scan-demo": "scan-demo-tiny", "tokens-demo": "tokens-demo-tiny"}
OPTIONS = {  # smaller values of what takes long, by option
    **{"--tokens": "1024", "--minutes": "0.02", "--remove": "1", "--layers": "3-4", "--sweep": "0:1"},
    **{"--checkpoints": "1", "--max-perplexity-increase": "12%"},
}
MORE = {  # options that make a command short where its line has none of them
    "scan": {"--tokens": "1024"},
    "prune": {"--tokens": "1024", "--effort": "one-shot"},
    "eval": {"--tokens": "1024"},
    "tokens": {"--tokens": "1024"},
    "trace": {"--tokens": "1024"},
    "delta": {"--tokens": "1024"},
    "heal": {"--holdout": "2"},
    "pretrain": {"--size": "tiny"},
}
STORY = '{"text": "Once upon a time there was a cat."}\n'
TEXTS = ("notes.txt", "story.txt", "corpus.jsonl.gz", "stories.txt.gz", "wiki.valid.txt.gz", "wiki.test.raw.gz")


def unrolled(code):
    """Return shell code with each `for NAME in A B; do ...; done` written out."""

    def written(match):
        name, values, body = match.groups()
        return "\n".join(body.replace(f"${name}", value) for value in values.split())

    return re.sub(r"^for (\w+) in ([^;]+); do (.+); done$", written, code, flags=re.MULTILINE)


def small(words):
    """Return the words of one of our commands with stand-ins for models, and budgets that take no time."""
    name, *rest = words
    found = [name]
    for before, word in itertools.pairwise(["", *rest]):
        place = MODELS.get(word, word) if not Path(word).exists() else word
        found.append(OPTIONS.get(before, place) if not word.startswith("-") else word)
    ready = {"--dry-run", "--maps"} & set(found) or any(map(Path.is_dir, map(Path, rest)))
    for option, value in ({} if ready else MORE.get(name, {})).items():
        found += [] if option in found else [option, value]
    replaces = any("--force" in parameter.opts for parameter in COMMAND.commands[name].params)
    return [*found, "--force"] if replaces and "--force" not in found else found


@pytest.fixture(scope="module")
def text():
    """The first stories of those beside the small models."""
    try:
        sibling_checkpoints("demo:tiny")
    except ModelError as error:
        pytest.skip(str(error))
    with gzip.open(default_text("demo:tiny"), "rt") as file:
        return file.read(60_000)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_blocks_of_a_page_run(page, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in TEXTS:
        data = text.encode() if ".jsonl" not in name else STORY.encode() * 400
        data = data[:600] if name == "story.txt" else data  # a prompt
        Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    whole = page.read_text(encoding="utf-8")
    for block in blocks(whole):
        if block.language != "sh" or block.runs or NOT_RUN.search(whole[: block.start]):
            continue
        for words in commands(unrolled(block.code)):
            assert words[0] == "rectilinear", f"expected commands of ours alone, or a line that says why not: {words}"
            if words[1] == "explore":
                continue  # a server; tests/app starts it
            monkeypatch.setattr(sys, "argv", ["rectilinear", *small(words[1:])])
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code, (sys.argv, capsys.readouterr().err[-500:])


def test_both_editions_of_the_tour_have_the_same_commands():
    tour, japanese = (
        [commands(block.code) for block in blocks(page.read_text(encoding="utf-8")) if block.language == "sh"]
        for page in (TOUR, JAPANESE)
    )
    assert tour == japanese
