"""What `mkdocs build` adds to the pages of docs/: the README as home, all commands' help, the names of the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from doc_blocks import relink
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PLACED = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the examples that pages link to."""
    pages = {site: relink((ROOT / name).read_text(encoding="utf-8"), ".", "docs") for name, site in PLACED.items()}
    for path in sorted((ROOT / "examples").iterdir()):
        files.append(File.generated(config, f"examples/{path.name}", content=path.read_text(encoding="utf-8")))
    pages |= {"reference/commands.md": commands(), "reference/python.md": names()}
    for name, page in pages.items():
        files.append(File.generated(config, name, content=page))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links to the examples to where the site has them."""
    return markdown.replace("](../examples/", "](examples/")


def commands() -> str:
    """Return the help of all commands as a page, by typer; examples become blocks of shell."""
    command = [sys.executable, "-m", "typer", "rectilinear.cli.main", "utils", "docs", "--name", "rectilinear"]
    page = subprocess.run([*command, "--title", "Commands"], check=True, capture_output=True, text=True).stdout
    examples = re.compile(r"(?:^rectilinear .*\n+)+", re.MULTILINE)
    return examples.sub(lambda match: "```sh\n" + match[0].replace("\n\n", "\n").rstrip() + "\n```\n\n", page)


def names() -> str:
    """Return a page on which mkdocstrings puts every public name of the package."""
    import rectilinear

    head = "# In Python\n\nEvery name below is of the package itself: `rectilinear.scan` and so on.\n\n"
    return head + "\n\n".join(f"::: rectilinear.{name}" for name in rectilinear.__all__) + "\n"
