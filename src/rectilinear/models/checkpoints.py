"""The checkpoints of one training: found in folders, among a model's revisions, or in this package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rectilinear.digests import digest
from rectilinear.errors import ModelError, ResultError
from rectilinear.models.revisions import check_revisions, revision_names, step_in
from rectilinear.models.siblings import is_sibling, sibling_checkpoints
from rectilinear.reading import read_json

STATE = "trainer_state.json"  # where transformers' Trainer keeps the step


@dataclass(frozen=True)
class Checkpoint:
    """The state of a model after a step of its training. model, revision: what `load` takes; name: as it is called."""

    step: int
    name: str
    model: str
    revision: str | None = None

    def digest(self) -> str | None:
        """Return a SHA-256 of configuration and weights; None where they are not in a local folder.

        Raises ModelError where a file cannot be read.
        """
        folder, whole = Path(self.model), hashlib.sha256()
        weights = sorted(folder.glob("*.safetensors"))
        for file in (folder / "config.json", *weights) if weights else ():
            try:
                whole.update(f"{digest(file)}  {file.name}\n".encode())
            except OSError as error:
                raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
        return whole.hexdigest() if weights else None

    @property
    def written(self) -> float | None:
        """When its weights were last written, in seconds of the epoch; None where they are not in a local folder."""
        return max((f.stat().st_mtime for f in Path(self.model).glob("*.safetensors")), default=None)


def find_checkpoints(
    model: str | None = None, *, revisions: str | None = None, checkpoints: str | None = None
) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a training in the order of their steps; no weights are read.

    One of: `model` on the Hub with `revisions` (names separated by commas, `pythia`, or `pythia:N` for N of them);
    `checkpoints`, a pattern of folders as a shell takes it; `model` a folder that holds checkpoint-STEP folders, and
    may be the final model itself; `model` one of this package. Raises ModelError where none is found, for a revision
    that does not exist, where a step is not known, and where two checkpoints have the same.
    """
    if revisions is not None:
        found = _revisions(model, revisions, checkpoints)
    elif checkpoints is not None:
        found = _folders(_matching(checkpoints))
    elif model is None:
        raise ModelError("expected a model with --revisions, a folder with checkpoints, or --checkpoints: got none")
    elif is_sibling(model):
        found = [Checkpoint(step, name.partition("/")[2], name) for step, name in sibling_checkpoints(model).items()]
    else:
        found = _inside(model)
    ordered = tuple(sorted(found, key=lambda one: one.step))
    for one, other in pairwise(ordered):
        if one.step == other.step:
            raise ModelError(f"expected checkpoints of different steps, got {one.name} and {other.name} of {one.step}")
    return ordered


def _revisions(model: str | None, asked: str, checkpoints: str | None) -> list[Checkpoint]:
    if model is None or checkpoints is not None:
        raise ModelError("expected --revisions with a model on the Hub, and without --checkpoints")
    if is_sibling(model) or Path(model).expanduser().exists():
        raise ModelError(f"expected --revisions of a model on the Hub, got {model}, which is here: leave them out")
    names = revision_names(asked)
    found = []
    for name in names:
        step = step_in(name)
        if step is None:
            raise ModelError(f"expected revisions with a step in their names, like step512, got {name!r}")
        found.append(Checkpoint(step, name, model, name))
    check_revisions(model, names)
    return found


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    matched = [p for p in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if p.is_dir()]
    if not matched:
        raise ModelError(f"no folder matches {pattern}: put the pattern in quotes, as in 'run/checkpoint-*'")
    return matched


def _inside(model: str) -> list[Checkpoint]:
    root = Path(model).expanduser()
    if not root.is_dir():
        raise ModelError(
            f"expected a folder that holds checkpoint-STEP folders, got {model}, which is none; "
            "a model on the Hub needs --revisions"
        )
    found = _folders([p for p in root.glob("checkpoint-*") if p.is_dir()])
    if not found:
        raise ModelError(f"no checkpoint-STEP folders in {model}; name others with --checkpoints 'FOLDER/PATTERN'")
    final = _trained(root)
    if final is not None and final > max(one.step for one in found) and any(root.glob("*.safetensors")):
        found.append(Checkpoint(final, root.name or str(root), str(root)))
    return found


def _folders(paths: Iterable[Path]) -> list[Checkpoint]:
    paths = list(paths)
    apart = len({path.name for path in paths}) == len(paths)
    return [Checkpoint(_step(path), path.name if apart else str(path), str(path)) for path in paths]


def _step(folder: Path) -> int:
    step = step_in(folder.name)
    step = _trained(folder) if step is None else step
    if step is None:
        raise ModelError(
            f"the step of {folder} is not known: expected a name like checkpoint-500, or a {STATE} with a global_step"
        )
    return step


def _trained(folder: Path) -> int | None:
    """Return the step in the Trainer's state, None where there is none."""
    try:
        step = read_json(folder / STATE, "remove it").get("global_step")
    except ResultError:
        return None
    return step if type(step) is int else None
