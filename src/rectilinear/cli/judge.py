"""`rectilinear judge`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rectilinear.cli.console import Console
from rectilinear.cli.hold import hold
from rectilinear.cli.options import Device, Dtype, Force, Json, TrustRemoteCode, slug
from rectilinear.cli.progress import progress_bar
from rectilinear.cli.say import answer, note, typed
from rectilinear.errors import RectilinearError
from rectilinear.files import under_way

EPILOG = """Examples:

rectilinear judge roneneldan/TinyStories-1M --prompts evaluation_prompts.yaml --judge gpt-5-mini --dry-run

rectilinear judge my-model --prompts evaluation_prompts.yaml --judge gpt-5-mini --price 0.25,2

rectilinear judge my-model --prompts prompts.jsonl --base-url http://localhost:8000/v1 --judge Qwen3-8B --repeats 2"""


def judge(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, .gguf file, or 'demo'.")],
    prompts: Annotated[
        str,
        typer.Option(help="Beginnings: a YAML list, a .txt of one a line, or rows with a `prompt` (jsonl, parquet)."),
    ],
    judge: Annotated[
        str, typer.Option(help="Model that grades, by its name at the endpoint; several separated by commas.")
    ],
    base_url: Annotated[
        str | None, typer.Option(help="Any endpoint of OpenAI's form.", show_default="https://api.openai.com/v1")
    ] = None,
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key; it is never printed.")] = (
        "OPENAI_API_KEY"
    ),
    samples: Annotated[int, typer.Option(help="Completions a prompt.", min=1)] = 1,
    tokens: Annotated[int, typer.Option(help="Tokens a completion, at most.", min=1)] = 150,
    temperature: Annotated[float, typer.Option(help="Of the completions; 0 takes the likeliest token.", min=0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the completions.")] = 0,
    repeats: Annotated[
        int,
        typer.Option(help="Gradings of each completion by each judge; with two or more, how far they agree.", min=1),
    ] = 1,
    judge_temperature: Annotated[float | None, typer.Option(min=0, show_default="the endpoint's")] = None,
    parallel: Annotated[int, typer.Option(help="Requests under way at once.", min=1)] = 4,
    per_minute: Annotated[float | None, typer.Option(help="Requests a minute, at most.", min=0.1)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0.1)] = 60.0,
    price: Annotated[
        str | None, typer.Option(help="Dollars per million tokens in and out, as 0.25,2: to say what it will cost.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for judge.json, judge.csv and judge.html.", show_default="judge-MODEL")
    ] = None,
    force: Force = False,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cost and one request, and leave.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Let a language model grade completions: grammar, creativity, consistency, plot (the paper's Table 3).

    Gradings are kept beside the folder as they come in; the same command again goes on where it stopped.
    """
    from rectilinear.data.prompts import read_prompts
    from rectilinear.report.folder import check_writable
    from rectilinear.report.judging import DOCUMENT, judging_table

    prices = _prices(price)
    folder = out or Path(f"judge-{slug(model)}")
    check_writable(folder, force, DOCUMENT)
    beginnings = read_prompts(prompts)
    with progress_bar(Console(stderr=True), "texts") as show:
        show("preparing", 0, None, "")
        from rectilinear.models.load import check_found, load
        from rectilinear.ops.judging.client import Client
        from rectilinear.ops.judging.run import Settings, estimate
        from rectilinear.ops.judging.run import judge as grade

        judges = tuple(dict.fromkeys(name.strip() for name in judge.split(",") if name.strip()))
        if not judges:
            raise RectilinearError(f"expected the name of a model as --judge, got {judge!r}")
        settings = Settings(judges, samples, tokens, temperature, seed, repeats, judge_temperature, parallel)
        asked = estimate(beginnings, settings)
        cost = "" if prices is None else f": about ${asked.cost(prices):.2f}"
        said = f"{asked.requests:,} requests, about {asked.tokens_in:,} tokens in and {asked.tokens_out:,} out{cost}"
        if dry_run:
            _explain(said, beginnings[0], folder)
            return
        hold(folder)
        check_found(model, trust_remote_code=trust_remote_code)
        client = Client(base_url, os.environ.get(key_env), per_minute=per_minute, timeout=timeout)
        note(said)
        show(f"loading {model}", 0, None, "")
        result = grade(
            *load(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code),
            beginnings,
            client,
            settings,
            journal=under_way(folder, ".jsonl"),
            provenance={"command": typed(), "source": prompts},
            on_progress=lambda task, done, total: show(task, done, total, ""),
        )
    result.save(folder, force=force)
    answer(result, judging_table, json=json, place=folder / "judge.html", kind="Page")


def _prices(value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        into, out = (float(part) for part in value.split(","))
    except ValueError:
        into = out = -1.0
    if not (0 <= into < float("inf") and 0 <= out < float("inf")):
        raise RectilinearError(f"expected --price as two numbers like 0.25,2, got {value!r}")
    return into, out


def _explain(said: str, prompt: str, folder: Path) -> None:
    """Print what would be asked, and the first request."""
    from rectilinear.ops.judging.rubric import messages
    from rectilinear.report.text import visible
    from rectilinear.results.judging import Completion

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"asks       {said}\nwrites     {folder}\n", markup=False)
    for message in messages(Completion(0, 0, prompt, "(the completion)")):
        lines = "\n".join(visible(line) for line in message["content"].splitlines())
        console.print(f"[{message['role']}]\n{lines}\n", markup=False)
