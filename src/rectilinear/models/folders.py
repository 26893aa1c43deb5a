"""What a folder with a model must hold, before anything of it is read."""

from __future__ import annotations

import json
from pathlib import Path

from rectilinear.errors import ModelError, first_line

INDEX = "model.safetensors.index.json"


def check_folder(path: Path) -> None:
    """Raise ModelError where a folder does not hold a configuration and all of its weights, as safetensors."""
    names = [p.name for p in path.iterdir()]
    if "config.json" not in names:
        raise ModelError(f"expected a model folder with a config.json, got {path}: it holds {len(names)} other files")
    _check_shards(path)
    if any(name.endswith(".safetensors") for name in names):
        return
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise ModelError(
            f"expected safetensors weights in {path}, got pickles only: they can run code and are not read; "
            "convert them with save_pretrained in a place that you trust"
        )
    raise ModelError(f"expected weights (*.safetensors) in {path}, got none")


def _check_shards(path: Path) -> None:
    """Raise ModelError where a file of weights that the index names is not there."""
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        named = sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read {path / INDEX}: {first_line(error)}") from error
    missing = [name for name in named if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"expected {len(named)} files of weights in {path}, got {len(named) - len(missing)}: no {missing[0]}"
        )


def check_heads(path: Path, model: str) -> None:
    """Raise ModelError where a file of weights is cut short or damaged, as far as its head tells."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, "numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read the weights of {model!r}, {file.name}: {first_line(error)}") from error


def tokenizer_place(source: str) -> str:
    """Return where a model's tokenizer is: that of a checkpoint without its own may lie in one of two folders above."""
    folder = Path(source)
    if folder.name.startswith("checkpoint-"):
        for place in (folder, *folder.absolute().parents[:2]):
            if (place / "tokenizer_config.json").is_file():
                return str(place)
    return source
