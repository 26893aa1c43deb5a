"""A cut model in int8 weights by torchao: perplexity before and after, on the text given.

pip install torchao
rectilinear prune demo --remove 6 --out small
python examples/int8.py small wiki.test.txt.gz
"""

from __future__ import annotations

import sys

from torchao.quantization import Int8WeightOnlyConfig, quantize_

import rectilinear
from rectilinear.data.text import read_text


def main(folder: str, text: str, tokens: int = 8192) -> None:
    """Print perplexity and size of the model in `folder`, as it is and quantised."""
    model, tokenizer = rectilinear.load(folder, dtype="float32")

    def judged() -> float:
        return rectilinear.perplexity(model, tokenizer, read_text(text).documents(), window=512, tokens=tokens)

    before = judged()
    # All linear layers but the head, which shares its matrix with the embedding and would be stored a second time.
    quantize_(model, Int8WeightOnlyConfig(), lambda module, name: _linear(module) and not name.endswith("lm_head"))
    after = judged()
    print(f"perplexity {before:.3f}, in int8 weights {after:.3f} ({after / before - 1:+.2%})")


def _linear(module: object) -> bool:
    return type(module).__name__ == "Linear"


if __name__ == "__main__":
    main(*sys.argv[1:3])
