"""The judge: completions made, graded, and what the grades come to."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rectilinear.core.bootstrap import mean_interval
from rectilinear.ops.judging.client import Answer, Client, JudgeError
from rectilinear.ops.judging.completions import completions
from rectilinear.ops.judging.journal import Grades
from rectilinear.ops.judging.rubric import messages, parse
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.results.judging import GRADES, LEAST, MOST, Agreement, Completion, Graded, JudgeResult, Mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRIES = 3  # at an answer that is in form
CHARACTERS = 4  # of English a token, about
ANSWER = 30  # tokens of an answer
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How completions are made and graded.

    judges: names of models at the endpoint. samples: completions a prompt, of up to `tokens` tokens at `temperature`.
    repeats: gradings of each by each judge, at `judge_temperature` (None: the endpoint's own). parallel: requests under
    way at once.
    """

    judges: tuple[str, ...]
    samples: int = 1
    tokens: int = 150
    temperature: float = 1.0
    seed: int = 0
    repeats: int = 1
    judge_temperature: float | None = None
    parallel: int = 4


@dataclass(frozen=True)
class Estimate:
    """What a judging will ask for: requests, and about how many tokens each way."""

    requests: int
    tokens_in: int
    tokens_out: int

    def cost(self, price: tuple[float, float]) -> float:
        """Return the cost at a price per million tokens in and out."""
        return (self.tokens_in * price[0] + self.tokens_out * price[1]) / 1e6


def estimate(prompts: Sequence[str], settings: Settings) -> Estimate:
    """Return what grading completions of `prompts` will take, completions taken at their full length."""
    each = settings.samples * settings.repeats * len(settings.judges)
    told = sum(len(m["content"]) for p in prompts for m in messages(Completion(0, 0, p, ""))) // CHARACTERS
    requests = len(prompts) * each
    return Estimate(requests, told * each + requests * settings.tokens, requests * ANSWER)


def judge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    client: Client,
    settings: Settings,
    *,
    journal: Path | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = lambda task, done, total: None,
) -> JudgeResult:
    """Let language models grade what `model` makes of story beginnings, after Eldan and Li (arXiv 2305.07759).

    `journal` is a file that keeps what is done; a run that stops on the way is taken up from it. Raises JudgeError
    where the judge cannot be had, ResultError for a journal of other settings, TextError for prompts that are too long.
    """
    facts = model_facts(model)
    asked = {key: value for key, value in asdict(settings).items() if key != "parallel"}
    digest = hashlib.sha256("\0".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    header = {**asked, "judges": list(settings.judges), "model": facts["fingerprint"], "set of prompts": digest}
    kept = Grades(journal, header)
    try:
        _complete(model, tokenizer, prompts, settings, kept, on_progress)
        _grade(client, settings, kept, on_progress)
    except JudgeError as error:
        where = "" if journal is None else f"; {len(kept.graded)} gradings are kept in {journal}: run again to go on"
        raise JudgeError(f"{error}{where}") from None
    kept.remove()
    about = {**facts, **run_facts(), **asked, "judges": list(settings.judges), "endpoint": client.host}
    return _result(kept, {**about, "prompts": len(prompts), **(provenance or {})}, settings.seed)


def _complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    settings: Settings,
    kept: Grades,
    on_progress: OnProgress,
) -> None:
    total, start = len(prompts) * settings.samples, len(kept.completions)
    if start == total:
        return
    first = start // settings.samples  # a prompt's samples are made together
    made = completions(
        model,
        tokenizer,
        prompts,
        samples=settings.samples,
        tokens=settings.tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        start=first,
    )
    known = {(c.prompt, c.sample) for c in kept.completions}
    for completion in made:
        if (completion.prompt, completion.sample) not in known:
            kept.add(completion)
        on_progress("writing completions", len(kept.completions), total)


def _grade(client: Client, settings: Settings, kept: Grades, on_progress: OnProgress) -> None:
    """Ask for every grading that the journal does not hold yet."""
    asked = itertools.product(kept.completions, settings.judges, range(settings.repeats))
    known = {(g.prompt, g.sample, g.judge, g.repeat) for g in kept.graded}
    left = [(c, name, n) for c, name, n in asked if (c.prompt, c.sample, name, n) not in known]
    total = len(known) + len(left)
    with ThreadPoolExecutor(settings.parallel) as pool:
        running = [pool.submit(_graded, client, settings, *one) for one in left]
        try:
            for future in as_completed(running):
                kept.add(future.result())
                on_progress("grading", len(kept.graded), total)
        finally:
            pool.shutdown(cancel_futures=True)  # of an error or Ctrl-C: what is under way is waited for, no more


def _graded(client: Client, settings: Settings, completion: Completion, name: str, repeat: int) -> Graded:
    """Return one grading; an answer that is not in form is asked for again, a few times."""
    chat = messages(completion)
    answers: list[Answer] = []
    grades = None
    while grades is None and len(answers) < TRIES:
        answers.append(client.ask(name, chat, temperature=settings.judge_temperature))
        grades = parse(answers[-1].text)
    spent = sum(a.tokens_in for a in answers), sum(a.tokens_out for a in answers)
    return Graded(completion.prompt, completion.sample, name, repeat, grades, *spent)


def _result(kept: Grades, facts: dict[str, Any], seed: int) -> JudgeResult:
    graded = tuple(sorted(kept.graded, key=lambda g: (g.prompt, g.sample, g.judge, g.repeat)))
    valid = [g for g in graded if g.grades is not None]
    notes = []
    if len(valid) < len(graded):
        notes.append(f"{len(graded) - len(valid)} of {len(graded)} gradings came back in no form that can be read.")
    facts |= {"tokens_in": sum(g.tokens_in for g in graded), "tokens_out": sum(g.tokens_out for g in graded)}
    means = {name: _mean(valid, (name,), seed) for name in GRADES} | {"mean": _mean(valid, GRADES, seed)}
    agreement = {name: _agreement(valid, name) for name in GRADES}
    some = any(a.pairs for a in agreement.values())
    return JudgeResult(means, agreement if some else {}, tuple(kept.completions), graded, facts, tuple(notes))


def _mean(valid: Sequence[Graded], names: Sequence[str], seed: int) -> Mean:
    """Return the mean of the grades `names`; prompts are resampled, not gradings, which hang together."""
    if not valid:
        return Mean(None, None, None)
    prompts = sorted({g.prompt for g in valid})
    sums, counts = torch.zeros(2, len(prompts), dtype=torch.float64)
    for one in valid:
        assert one.grades is not None
        sums[prompts.index(one.prompt)] += sum(one.grades[name] for name in names) / len(names)
        counts[prompts.index(one.prompt)] += 1
    low, high = mean_interval(sums, counts, seed=seed)
    return Mean(float(sums.sum() / counts.sum()), low, high)


def _agreement(valid: Sequence[Graded], name: str) -> Agreement:
    """Return how gradings of one completion agree: every two of them, by other judges or the same one again."""
    by_completion: dict[tuple[int, int], list[int]] = {}
    for one in valid:
        assert one.grades is not None
        by_completion.setdefault((one.prompt, one.sample), []).append(one.grades[name])
    pairs = [pair for values in by_completion.values() for pair in itertools.combinations(values, 2)]
    if not pairs:
        return Agreement(0, None, None)
    # Neither of a pair comes first: both orders count, so that kappa does not depend on the judges' order.
    table = torch.zeros(MOST - LEAST + 1, MOST - LEAST + 1, dtype=torch.float64)
    for a, b in pairs:
        table[a - LEAST, b - LEAST] += 0.5
        table[b - LEAST, a - LEAST] += 0.5
    grid = torch.arange(len(table), dtype=torch.float64)
    distance = (grid[:, None] - grid).square()
    chance = float((torch.outer(table.sum(1), table.sum(0)) / len(pairs) * distance).sum())
    kappa = 1 - float((table * distance).sum()) / chance if chance > 0 else None
    return Agreement(len(pairs), sum(abs(a - b) <= 1 for a, b in pairs) / len(pairs), kappa)
