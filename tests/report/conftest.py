"""Scan results made up, but shaped like real ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from browser import PATIENCE, Watched, chromium
from rectilinear.results import (
    Change,
    Changes,
    Checkpoint,
    DeltaResult,
    EvalResult,
    Guess,
    HealPoint,
    HealResult,
    JudgeResult,
    LayerDelta,
    LayerResult,
    LayerScores,
    Loss,
    ModelResult,
    Passage,
    Plan,
    Point,
    PretrainResult,
    ProbeCurve,
    ProbePoint,
    ProbeResult,
    PruneResult,
    ScanResult,
    Score,
    Sinks,
    Size,
    Spectrum,
    SweepResult,
    Tails,
    TextsResult,
    TokenResult,
    TokensResult,
    TracePoint,
    TraceResult,
    TrainPoint,
)
from rectilinear.results.judging import GRADES, Completion, Graded, Mean

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'&",
    "\u202eevil",
    "😀",
    "\ud800",
    "[bold]x[/bold]",
    "\x1b[31m",
    "a\nb",
    "$x^2$",
)


DENSE, CUT = Loss(30.0, 0.0), Loss(36.0, 0.2)


@pytest.fixture
def results(make_scan):
    """One result of every kind that a notebook shows, a scan first."""
    scan = make_scan(3)
    plan = Plan((1, 2), 6, "kl", "refit", False, 0.1, HOSTILE[0], "0" * 16, {"judge_tokens": 10})
    table = [[[0.5, 0.1], [0.2, 0.6]]] * 3
    values, guesses = (0.2, 0.4), (Guess(HOSTILE[0], 0.5),) * 3
    token = TokenResult(
        0, 7, HOSTILE[0], values, values, values, values, values, (False, True), guesses, guesses, None, None
    )
    points = [Point("kl", "refit", remove, CUT, 1.2, 100, 50.0) for remove in ((), (1,), (1, 2))]
    history = tuple(HealPoint(i, 64 * i, i / 10, 2.0 - i / 10) for i in (1, 2))
    return [
        scan,
        TextsResult(
            {"prose": scan, HOSTILE[0]: scan},
            {k: {"heldout": table, "ordinary": table} for k in ("score", "increment")},
        ),
        SweepResult({}, 6, points[0], tuple(points[1:])),
        TokensResult({"model": HOSTILE[0]}, (token,)),
        EvalResult({}, (ModelResult(HOSTILE[0], {}, Size(6, 100, 400)),)),
        PruneResult(plan, DENSE, CUT, 120, 100, 3.0),
        HealResult(plan, {"loss": "kl", "train": "all"}, 10, 100, DENSE, CUT, DENSE, 500, history),
        *trained(scan),
        *judged(),
    ]


def trained(scan):
    """A training, the scans of its checkpoints, and what changed from the first to the last."""
    layers = tuple(LayerScores(one.layer, one.score, one.increment, 0.3, 0.9, 1) for one in scan.layers)
    first = scan.layers[0]
    points = [
        TracePoint(
            step,
            f"checkpoint-{step} {HOSTILE[0]}",
            None,
            "f",
            "2026-01-01",
            first.score,
            first.increment,
            0.3,
            0.9,
            layers,
        )
        for step in (1, 64)
    ]
    moved = Changes(*[Change(0.5, 0.6, 0.1, 0.05, 0.15)] * 3)
    recipe = {"penalty": "cosine", "weight": 0.5, "size": "tiny"}
    corpus = {"documents": 9, "heldout": 1, "dropped": 0, "tokens": 64, "epochs": 1.0}
    return (
        TraceResult({**scan.provenance, "steps": [1, 64]}, tuple(points)),
        DeltaResult(
            {"model": HOSTILE[0]},
            {"model": "b"},
            scan.provenance,
            tuple(LayerDelta(i, moved, moved) for i in range(3)),
            {"score": moved, "increment": moved},
        ),
        PretrainResult(
            recipe,
            100,
            8,
            corpus,
            (Checkpoint("checkpoint-1", 1, 64, 2.5, 1.1),),
            (TrainPoint(1, 64, 1.0, 2.6, 0.1),),
            HOSTILE[0],
        ),
    )


def judged():
    """What was read off a model, and what was thought of its stories."""
    points = tuple(ProbePoint(i, 0.5 + 0.02 * i, 0.45, 0.7, 0.9, 0.01) for i in range(4))
    task = {"name": HOSTILE[0], "source": "s", "labels": ("no", "yes"), "train": 9, "test": 5, "test_groups": 5}
    means = {name: Mean(7.0, 6.0, 8.0) for name in (*GRADES, "mean")}
    graded = (
        Graded(0, 0, "j", 0, dict.fromkeys(GRADES, 7), 10, 5),
        Graded(0, 0, "j", 1, None, 10, 5),
    )
    facts = {"judges": ["j"], "model": HOSTILE[0], "repeats": 2, "tokens_in": 20, "tokens_out": 10}
    return (
        ProbeResult(task, 0.53, (ProbeCurve(HOSTILE[0], {"model": "m"}, points),), {"pooling": "mean"}),
        JudgeResult(means, {}, (Completion(0, 0, HOSTILE[0], HOSTILE[0]),), graded, facts),
    )


@pytest.fixture
def make_scan() -> Callable[..., ScanResult]:
    """Return the factory: a scan of so many layers, with or without text held out."""
    return scan_of


def scan_of(layers: int = 12, *, heldout: bool = True, model: str = "org/tiny [bold]<b>") -> ScanResult:
    edges = 2.0 ** np.arange(-8, 12.25, 0.25)
    counts = np.stack([_counts(edges, i) for i in range(layers)])
    arrays = {"error_edges": edges, "error_histogram": counts, **_passage(layers)} if heldout else {}
    per_d = {"paper": 32.0, "heldout": 24.0, "ordinary": 23.9}
    return ScanResult(
        provenance={
            "model": model,
            "text": "wikitext-2 </title><script>alert(2)</script>",
            "tokens": 18432,
            "tokens_heldout": 4608 if heldout else 0,
            "documents": 61,
            "unit": "document",
            "tokens_per_d": per_d,
            "d": 576,
            "window": 512,
            "revision": None,
            "versions": {"rectilinear": "0.1.0"},
            "command": "rectilinear scan 'org/tiny' --text \ud800.txt",
        },
        layers=tuple(_layer(i, layers, heldout) for i in range(layers)),
        warnings=("The held-out scores rest on few tokens <img src=x>.",),
        arrays=arrays,
        passage=Passage(54, 0, HOSTILE) if heldout else None,
    )


def _passage(layers: int) -> dict[str, np.ndarray]:
    error = np.linspace(0.04, 1.3, layers * len(HOSTILE), dtype=np.float32).reshape(layers, -1)
    error[0, 1] = np.nan
    sink = np.zeros(error.shape, dtype=bool)
    sink[2:, 0] = True
    return {"passage_error": error, "passage_sink": sink}


def _counts(edges: np.ndarray, layer: int) -> np.ndarray:
    rng = np.random.default_rng(layer)
    errors = np.exp(rng.normal(1 + 0.15 * layer, 0.4, 4000)) * (1 + rng.pareto(2.5, 4000))
    return np.histogram(errors, edges)[0]


def _layer(i: int, layers: int, heldout: bool) -> LayerResult:
    depth = i / max(layers - 1, 1)
    sinks = 0.15 < depth < 0.9
    paper = 0.99965 if sinks else 0.97 - 0.05 * depth
    unseen = 0.93 - 0.12 * math.sin(3 * depth) if heldout else None
    inner = 0.35 + 0.4 * math.cos(2 * depth) ** 2 if heldout else None
    if heldout and i == 3:
        inner = -1.7
    tokens = tuple({"token": t, "position": p, "count": 40 - p, "norm": 29000.0} for p, t in enumerate(HOSTILE))
    triggers = tuple(
        {
            "token": t,
            "document": p,
            "position": 7,
            "error": 90.0 - p,
            "relative_error": 1.4,
            "sink": p == 0,
            "before": t,
        }
        for p, t in enumerate(HOSTILE)
    )
    tails = Tails(5 + i, 40 + i, 900.0, 0.31, 0.48, 0.6, 1.8) if heldout else Tails(*[None] * 7)
    return LayerResult(
        layer=i,
        score=_score(paper, unseen),
        increment=_score(0.99 if sinks else 0.7 - 0.2 * depth, inner),
        norm_ratio=0.4 - 0.3 * math.sin(3 * depth),
        cosine=0.95 - 0.1 * depth**2,
        cosine_std=0.03,
        stream_norm_median=100.0 * (1 + i),
        stream_norm_max=29000.0 if sinks else 300.0 * (1 + i),
        sinks=Sinks(61, 0.0033, 0.981, tokens) if sinks else Sinks(0, 0.0, 0.0),
        tails=tails,
        spectrum=Spectrum(0.1 + 0.2 * depth, 300 - 100 * depth, None if i == 0 else 14.5),
        triggers=triggers if heldout else (),
    )


def _score(paper: float, unseen: float | None) -> Score:
    if unseen is None:
        return Score(paper, *[None] * 6)
    return Score(paper, unseen, unseen - 0.03, unseen + 0.02, unseen - 0.02, unseen - 0.05, unseen)


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture
def show(browser, tmp_path):
    """Return the factory: a page of some HTML, opened from a file; in the end it must have been quiet."""
    opened, contexts = [], []

    def open_page(html, fragment="", **options):
        file = tmp_path / f"page{len(opened)}.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        opened.append(Watched(context.new_page()))
        opened[-1].page.goto(file.as_uri() + fragment)
        return opened[-1].page

    yield open_page
    for watched in opened:
        watched.check()
    for context in contexts:
        context.close()
