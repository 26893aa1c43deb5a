"""Checkpoints of a training: whole or not there, and the last whole one found again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rectilinear.digests import SUMS, fault, read_sums, write_sums
from rectilinear.errors import ResultError, first_line
from rectilinear.files import discard
from rectilinear.reading import read_json


class SavingTrainer(Trainer):
    """A Trainer whose checkpoints are whole once they have their checksums, which come last.

    One that it could not write to its end it takes back; raises ResultError where the disk refuses. A kill still leaves
    a part of one, which `last_checkpoint` passes over.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        discard(folder)  # what is there of it is a part, or damaged
        try:
            super()._save_checkpoint(model, trial)
            # The last is a pickle that nothing reads: `Books` drops it.
            write_sums(folder, sorted(path.name for path in folder.iterdir() if path.name != TRAINING_ARGS_NAME))
        except BaseException as error:
            if not (folder / SUMS).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | SafetensorError | RuntimeError):  # the last is torch's for a full disk
                raise ResultError(f"cannot write {folder}: {first_line(error)}; those before it are good") from error
            raise


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a folder holds a checkpoint that was written to its end, as cheaply as can be."""
    return bool(_written(folder))


def last_checkpoint(folder: Path, remedy: str) -> tuple[Path | None, tuple[str, ...]]:
    """Return the last checkpoint in a folder that is as it was written, None where none was, and notes on damaged ones.

    Raises ResultError, with what to do, where all are damaged.
    """
    notes: list[str] = []
    for checkpoint in reversed(_written(folder)):
        damage = _damage(checkpoint)
        if damage is None:
            return checkpoint, tuple(notes)
        notes.append(f"{checkpoint.name} is damaged and passed over: {damage}.")
    if notes:
        raise ResultError(f"cannot resume from {folder}, which has no whole checkpoint: {notes[0][:-1]}; {remedy}")
    return None, ()


def _written(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder that were written to their end, in order.

    Where one has checksums one without them is a part; without any they are of an earlier version, whose state came
    last.
    """
    steps = {path: path.name.partition("-")[2] for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    found = sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))
    return [path for path in found if (path / SUMS).is_file()] or [path for path in found if _has_state(path)]


def _has_state(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / TRAINER_STATE_NAME, "")
    except ResultError:
        return False
    return True


def _damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint that was written to its end, None where nothing is known to be."""
    if not (checkpoint / SUMS).is_file():
        return None
    try:
        known = read_sums(checkpoint)
    except (OSError, ResultError) as error:
        return first_line(error)
    wrong = ((name, fault(checkpoint, name, expected)) for name, expected in known.items())
    return next((f"{name} {said}" for name, said in wrong if said), None)
