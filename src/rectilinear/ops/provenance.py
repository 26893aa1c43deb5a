"""What every result says about where it comes from."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rectilinear.models.load import fingerprint, model_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model_facts(model: PreTrainedModel, known: str | None = None) -> dict[str, Any]:
    """Return the model's id, revision, fingerprint (`known` where it is), type, precision and device."""
    return {
        "model": model_id(model),
        "revision": getattr(model.config, "_commit_hash", None),
        "fingerprint": known or fingerprint(model),
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def run_facts(*more: str) -> dict[str, Any]:
    """Return the versions of what computes, and of `more` packages, the command (None in Python) and the time."""
    names = ("rectilinear", "torch", "transformers", "numpy", *more)
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "versions": {**versions, "python": platform.python_version()},
        "command": None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
