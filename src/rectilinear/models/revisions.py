"""Revisions of a model on the Hub that are states of its training."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches

from rectilinear.errors import ModelError
from rectilinear.hub import limit_patience

# EleutherAI's Pythia models have a branch stepN for each of these (arXiv 2304.01373).
PYTHIA = (0, *(2**i for i in range(10)), *range(1000, 143_001, 1000))
STEP = re.compile(r"(?:step|checkpoint)[-_ ]?(\d+)(k|m)?(?![0-9a-z])", re.IGNORECASE)
NEAR = 3  # revisions named in an error


def step_in(name: str) -> int | None:
    """Return the training step in a name like step512, checkpoint-500 or step1000-tokens4B; None where none is."""
    found = STEP.search(name)
    if found is None:
        return None
    return int(found[1]) * {"": 1, "k": 1000, "m": 1_000_000}[(found[2] or "").lower()]


def revision_names(asked: str) -> tuple[str, ...]:
    """Return the names in --revisions: separated by commas, `pythia` for all of Pythia's, `pythia:8` for eight of them.

    Raises ModelError where there are none, or for a number that Pythia cannot give.
    """
    family, colon, count = asked.partition(":")
    if family == "pythia":
        return tuple(f"step{step}" for step in (spread(count) if colon else PYTHIA))
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    if not names:
        raise ModelError("expected --revisions as step1,step512,... or pythia or pythia:8, got none")
    return names


def spread(count: str) -> tuple[int, ...]:
    """Return so many of Pythia's steps, even on a logarithmic axis (of step + 1), the first and the last among them."""
    if not (count.isdecimal() and 2 <= int(count) <= len(PYTHIA)):
        raise ModelError(f"expected pythia:N with N from 2 to {len(PYTHIA)}, got 'pythia:{count}'")
    n, end = int(count), math.log1p(PYTHIA[-1])
    left = list(PYTHIA)
    chosen = []
    for i in range(n):
        chosen.append(min(left, key=lambda step: abs(math.log1p(step) - i * end / (n - 1))))
        left.remove(chosen[-1])
    return tuple(sorted(chosen))


def check_revisions(model: str, names: tuple[str, ...]) -> None:
    """Raise ModelError, with near ones, for a name that is no branch or tag of the model on the Hub.

    Where the Hub cannot be asked nothing is raised: what is in the local cache will do.
    """
    from huggingface_hub import HfApi

    limit_patience()
    try:
        refs = HfApi().list_repo_refs(model)
    except Exception:  # no network, no such model: its clients raise a dozen kinds, and loading will say which
        return
    known = [ref.name for ref in (*refs.branches, *refs.tags)]
    for name in names:
        if name not in known:
            near = _near(name, known)
            said = f": near ones are {', '.join(near)}" if near else f": it has {len(known)}, none of such a name"
            raise ModelError(f"no revision {name!r} of {model} on the Hub{said}")


def _near(name: str, known: list[str]) -> list[str]:
    """Return the revisions of the nearest steps, or those spelt most alike where the name has no step."""
    step = step_in(name)
    steps = {other: found for other in known if (found := step_in(other)) is not None}
    if step is None or not steps:
        return get_close_matches(name, known, NEAR)
    by_distance = sorted(steps, key=lambda other: abs(math.log1p(steps[other]) - math.log1p(step)))
    return sorted(by_distance[:NEAR], key=steps.__getitem__)
