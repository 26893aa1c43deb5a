"""Checkpoints of a training: whole or not there, and the last whole one found again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rectilinear.errors import ResultError, first_line
from rectilinear.reading import read_json


class SavingTrainer(Trainer):
    """A Trainer that takes back a checkpoint it could not write to its end; raises ResultError where the disk refuses.

    A kill still leaves a part of one, which `last_checkpoint` passes over.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except BaseException as error:
            if not _whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | SafetensorError | RuntimeError):  # the last is torch's for a full disk
                raise ResultError(f"cannot write {folder}: {first_line(error)}; those before it are good") from error
            raise


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint in a folder that was written to its end, None where there is none."""
    steps = {path: path.name.partition("-")[2] for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
    found = sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))
    return next(filter(_whole, reversed(found)), None)


def _whole(checkpoint: Path) -> bool:
    """Tell whether the state, which is written last, is there to its end."""
    try:
        read_json(checkpoint / TRAINER_STATE_NAME, "")
    except ResultError:
        return False
    return True
