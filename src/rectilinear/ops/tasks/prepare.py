"""Tasks of lm-evaluation-harness, found by their names and loaded: from the Hub, or from local files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import RectilinearError, first_line, nearest
from rectilinear.hub import limit_patience
from rectilinear.ops.tasks.silence import silence

DATA = "RECTILINEAR_DATA"  # the variable that names the folder of local files
HERE = Path(__file__).parent
TRIED = 50  # documents made into requests to foresee how many there will be
WANTED = "tasks need lm-evaluation-harness 0.4.12 or newer, the extra `tasks`: pip install 'rectilinear[tasks]'"


@dataclass(frozen=True)
class Unit:
    """A task, or a group of tasks, that is run by itself. loaded: as the harness's TaskManager gives it."""

    name: str
    local: bool
    loaded: dict[str, Any]


@dataclass(frozen=True)
class Tasks:
    """What models are asked: `limit` documents of each task, None for all. notes: what was left out, in sentences."""

    units: tuple[Unit, ...]
    limit: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Foreseen:
    """What a task will ask; None where its data lie on the Hub. requests: as many a document as the first ones need."""

    name: str
    documents: int | None = None
    requests: int | None = None


def prepare(names: str | Sequence[str], limit: int | None = None) -> Tasks:
    """Load tasks and groups by the harness's names; a tag stands for its tasks. All are made zero-shot.

    Those that this package has files for are read from the folder that RECTILINEAR_DATA names, where the data are
    there; all others come from the Hub, and are left out with a note where they cannot. Raises RectilinearError
    without the harness, for an unknown name, and where no task is left.
    """
    names = (names,) if isinstance(names, str) else names
    units: list[Unit] = []
    notes: list[str] = []
    limit_patience()
    with silence():
        shelf = _Shelf(names)
        for name in shelf.names:
            try:
                units.append(shelf.load(name))
            except Exception as error:  # the harness and the Hub's clients raise a dozen kinds
                notes.append(f"The task {name} was left out: {first_line(error)}")
    if not units:
        raise RectilinearError(f"no task can be run. {' '.join(notes)}")
    return Tasks(tuple(units), limit, tuple(notes))


def foresee(names: Sequence[str], limit: int | None = None) -> tuple[Foreseen, ...]:
    """Tell what `prepare` would load, without the Hub; raises as it does, and for a local file that cannot be read."""
    with silence():
        shelf = _Shelf(names)
        return tuple(_foreseen(shelf, name, limit) for name in shelf.names)


def _foreseen(shelf: _Shelf, name: str, limit: int | None) -> Foreseen:
    if not shelf.local(name):
        return Foreseen(name)
    try:
        (task,) = shelf.load(name).loaded["tasks"].values()
        documents = min(limit or sys.maxsize, len(task.eval_docs))
        tried = min(documents, TRIED)
        task.build_all_requests(limit=tried)
    except Exception as error:
        raise RectilinearError(f"the local data of the task {name} cannot be read: {first_line(error)}") from error
    return Foreseen(name, documents, round(len(task.instances) / tried * documents))


class _Shelf:
    """The harness's tasks, as far as `names` need them; tags among these are resolved."""

    def __init__(self, names: Sequence[str]) -> None:
        root = os.environ.get(DATA)
        if root and not Path(root).is_dir():
            raise RectilinearError(f"expected a folder in {DATA}, got {root}: set it to one, or unset it")
        self._root = None if not root else Path(root).absolute()
        self._manager = _manager(names)
        index = self._manager.task_index
        for name in names:
            if name not in index:
                raise RectilinearError(f"expected a task of lm-evaluation-harness, got {name!r}.{nearest(name, index)}")
        tags = set(self._manager.all_tags)
        self.names = tuple(
            dict.fromkeys(n for name in names for n in (sorted(index[name].tags) if name in tags else [name]))
        )

    def local(self, name: str) -> dict[str, Any] | None:
        """Return the configuration of a task on local files: the harness's own, but for where the data lie."""
        own = HERE / f"{name}.yaml"
        if self._root is None or not own.is_file():
            return None
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(own)
        options = config["dataset_kwargs"]
        files = {split: self._root / file for split, file in options["data_files"].items()}
        if not all(file.is_file() for file in files.values()):
            return None
        paths = {split: str(file) for split, file in files.items()}
        harness = load_yaml(self._manager.task_index[name].yaml_path)
        return {**harness, **config, "dataset_kwargs": {**options, "data_files": paths}}

    def load(self, name: str) -> Unit:
        """Load a task or group, zero-shot; raises what the harness and the Hub's clients raise."""
        local = self.local(name)
        loaded = self._manager.load([local or name])
        for task in loaded["tasks"].values():
            _check(task)
            task.set_config("num_fewshot", 0)
        return Unit(name, local is not None, loaded)


def _check(task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise RectilinearError("it runs code that a model writes, which rectilinear does not")
    if getattr(task, "MULTIMODAL", False):
        raise RectilinearError("it asks about images or sounds")


def _manager(names: Sequence[str]) -> Any:
    """Return the harness's TaskManager over the folders that define `names`.

    Over all of its 14,000 files, which takes it a quarter of a minute, only for groups, whose members lie anywhere,
    and for unknown names.
    """
    try:
        import lm_eval.tasks
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise RectilinearError(WANTED) from error
    if not hasattr(TaskManager, "load"):
        raise RectilinearError(WANTED)
    choice = "|".join(map(re.escape, names))
    defines = re.compile(rf"""^\s*(?:-\s*)?(?:(?:task|tag|group):\s*)?["']?(?:{choice})["']?\s*$""", re.MULTILINE)
    root = Path(lm_eval.tasks.__file__).parent
    files = (path for path in root.glob("*/**/*.yaml") if defines.search(path.read_text("utf-8", errors="replace")))
    # Later folders win where a name is taken twice, while over all files the first does.
    folders = sorted({root / path.relative_to(root).parts[0] for path in files}, reverse=True)
    narrow = TaskManager(include_path=folders, include_defaults=False)
    if all(name in narrow.task_index and name not in narrow.all_groups for name in names):
        return narrow
    return TaskManager()
