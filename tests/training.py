"""A run that never was: checkpoints of a tiny model whose weights move a little from one to the next."""

import torch

import tiny

STEPS = (0, 4, 20, 100)


def save_run(root, steps=STEPS, *, tokenizer="each", dtype=None, **options):
    """Write checkpoint-STEP folders with a tokenizer each or, with "above", one for all; return `root`."""
    for index, step in enumerate(steps):
        model = tiny.llama(**options)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(7)
            for weight in model.parameters():
                weight += 0.1 * index * torch.randn(weight.shape, generator=generator)
        place = root / f"checkpoint-{step}"
        model.to(dtype or torch.float32).save_pretrained(place)
        if tokenizer == "each":
            tiny.tokenizer().save_pretrained(place)
    if tokenizer == "above":
        tiny.tokenizer().save_pretrained(root)
    return root
