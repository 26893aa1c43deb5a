"""Scan a model that is already in memory, on texts of your own, and print its most and least linear layers."""

import rectilinear
from rectilinear.data.text import read_text

model, tokenizer = rectilinear.load("demo")
result = rectilinear.scan(model, tokenizer, texts=read_text("demo").documents(), tokens=16_384)
ranked = sorted(result.layers, key=lambda layer: layer.score.ordinary or 0.0)
for layer in (ranked[0], ranked[-1]):
    print(f"layer {layer.layer}: ordinary {layer.score.ordinary:.4f}, by the paper's formula {layer.score.paper:.4f}")
