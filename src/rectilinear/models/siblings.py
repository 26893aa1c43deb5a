"""Small models trained for this package and shipped in it, with their checkpoints: `demo:tiny` and `demo:tiny-cosine`.

The folder `tiny` beside this module holds

    tokenizer.json, tokenizer_config.json    one tokenizer for all
    stories.txt.gz                           optional: stories that none was trained on, the default text
    plain/checkpoint-STEP/                   config.json and model.safetensors; the last step is the final model
    cosine/checkpoint-STEP/                  the same start and batches, trained with the cosine penalty

Weights may be kept in bfloat16: where the config.json says float32, they are computed with in float32.
"""

from __future__ import annotations

from pathlib import Path

from rectilinear.errors import ModelError, nearest

ASSETS = Path(__file__).with_name("tiny")
PREFIX = "demo:"
FOLDERS = {"demo:tiny": "plain", "demo:tiny-cosine": "cosine"}


def is_sibling(model: str) -> bool:
    """Tell whether a name is one of a model in this package."""
    return model.startswith(PREFIX)


def sibling_checkpoints(model: str) -> dict[int, str]:
    """Return by their step, in order, the names that `sibling_folder` takes: `demo:tiny/checkpoint-STEP`.

    Raises ModelError for an unknown name, and where the weights are not in this installation.
    """
    if model not in FOLDERS:
        raise ModelError(
            f"expected one of {', '.join(FOLDERS)}, got {model!r}.{nearest(model, FOLDERS)} "
            "A checkpoint is named as in demo:tiny/checkpoint-100"
        )
    root = ASSETS / FOLDERS[model]
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in root.glob("checkpoint-*"))
    if not steps:
        raise ModelError(f"the weights of {model} are not in this installation of rectilinear; 'demo' is in any")
    return {step: f"{model}/checkpoint-{step}" for step in steps}


def sibling_folder(model: str) -> Path:
    """Return the folder of `demo:tiny`'s final model, or of the checkpoint in `demo:tiny/checkpoint-STEP`.

    Raises ModelError as above, and for a step that is not there.
    """
    name, _, checkpoint = model.partition("/")
    names = list(sibling_checkpoints(name).values())
    wanted = model if checkpoint else names[-1]
    if wanted not in names:
        raise ModelError(f"no checkpoint {model!r} in this installation.{nearest(model, names)}")
    return ASSETS / FOLDERS[name] / wanted.partition("/")[2]


def default_text(model: str) -> str:
    """Return the text for a model where none is named: the stories beside the siblings, for others the demo."""
    stories = ASSETS / "stories.txt.gz"
    return str(stories) if is_sibling(model) and stories.is_file() else "demo"
