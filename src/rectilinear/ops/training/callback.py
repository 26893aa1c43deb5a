"""Measure linearity while any Trainer trains, and log it beside the loss."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import Trainer, TrainerCallback

from rectilinear.errors import RectilinearError
from rectilinear.files import write_whole, writing
from rectilinear.ops.training.profile import profile, profile_pieces
from rectilinear.reading import from_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVERY = 500  # steps
FILE = "linearity.jsonl"


class LinearityCallback(TrainerCallback):
    """Measures a quick linearity profile every so many steps of a Trainer's run, and after the last one.

    trainer: the run's, of any class; then `trainer.add_callback(callback)`. texts: documents that are not trained on,
    read now, as far as needed. every: steps. tokens: of the text, by default 16 for each of the stream's d numbers and
    at least 4,096; window: the longest context. path: of a JSONL file, one profile a line, by default linearity.jsonl
    in the run's output folder; lines beyond the step that a run starts from are dropped. layers_path: where the decoder
    stack is not found by itself.

    The means over layers go to the Trainer's own loggers, as `linearity/increment`, and each layer's increment score
    too, as `linearity/increment/03`. Only the first process measures, on the unwrapped model: not for FSDP.

    Raises RectilinearError for a number of steps below 1 and a Trainer without a tokenizer, TextError for too little
    text, ModelError where the stack is not found; in training ResultError where the file cannot be written.
    """

    def __init__(
        self,
        trainer: Trainer,
        texts: Iterable[str],
        *,
        every: int = EVERY,
        tokens: int | None = None,
        window: int = 512,
        path: str | Path | None = None,
        layers_path: str | None = None,
    ) -> None:
        if every < 1:
            raise RectilinearError(f"expected a profile every 1 steps or more, got {every}")
        if trainer.processing_class is None:
            raise RectilinearError("expected a Trainer with a tokenizer, got none: give it, processing_class=")
        self._trainer = trainer
        self._every = every
        self._pieces = profile_pieces(self._model, trainer.processing_class, texts, tokens=tokens, window=window)
        self._layers_path = layers_path
        self._path = Path(path or Path(str(trainer.args.output_dir)) / FILE)
        self._measured: int | None = None

    @property
    def _model(self) -> PreTrainedModel:
        return cast("PreTrainedModel", self._trainer.model)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep of an earlier file what this run goes on from; measure a model that has not been trained yet."""
        if not state.is_world_process_zero:
            return
        kept = _up_to(self._path, state.global_step) if state.global_step else []
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, "".join(f"{json.dumps(line)}\n" for line in kept).encode())
        self._measured = kept[-1]["step"] if kept else None
        if not state.global_step:
            self._measure(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure after every so many steps."""
        if state.global_step % self._every == 0:
            self._measure(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure what came of it."""
        self._measure(state, control)

    def _measure(self, state: Any, control: Any) -> None:
        if self._measured == state.global_step or not state.is_world_process_zero:
            return
        self._measured = state.global_step
        found = profile(self._model, self._pieces, layers_path=self._layers_path)
        line = json.dumps({"step": state.global_step, **found.to_dict()}, allow_nan=False)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        told = {f"linearity/{name}": value for name, value in found.means().items()}
        told |= {f"linearity/increment/{p.layer:02d}": p.increment for p in found.layers if p.increment is not None}
        due = control.should_log
        self._trainer.log(told)
        control.should_log = due  # or the step's loss would count as logged


def _up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """Return the profiles up to a step; a line that a kill has cut, or that is no profile, is none."""
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            entry = from_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and type(entry.get("step")) is int and entry["step"] <= step:
            found.append(entry)
    return found
