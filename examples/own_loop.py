"""The penalty in a training loop of your own: a few steps of the demo model, with the cosine penalty and without."""

import copy

import torch

import rectilinear
from rectilinear.data.text import read_text

model, tokenizer = rectilinear.load("demo", dtype="float32")
documents = [text[:2000] for text, _ in zip(read_text("demo").documents(), range(4), strict=False)]
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
batch = tokenizer(documents, return_tensors="pt", padding=True, truncation=True, max_length=128)
labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)

for weight in (0.0, 0.5):
    student = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(student.parameters(), 1e-5)
    for step in range(4):
        with rectilinear.recorded(rectilinear.decoder_stack(student)) as positions:
            loss = student(**batch, labels=labels, use_cache=False).loss
        penalty = rectilinear.cosine_penalty(positions, batch.attention_mask)
        print(f"weight {weight}, step {step}: loss {loss.item():.4f}, 1 - cosine over layers {penalty.item():.4f}")
        (loss + weight * penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
