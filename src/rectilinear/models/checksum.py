"""What tells one set of weights from another: exact sums of all their bits, read once, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FIRST = 8
SAMPLES = 1024  # of one tensor, by which the order of its numbers counts
CHUNK = 1 << 18  # numbers at once: in single precision they stay in a core's cache


def weights_of(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the values of every weight and every buffer that is saved, tied ones once.

    What is off-loaded is read from where it lies; one that is nowhere is on the meta device. A quantiser's own kind of
    tensor is taken apart into plain ones.
    """
    held = {name: part for name, part in model.state_dict(keep_vars=True).items() if isinstance(part, Tensor)}
    tied = getattr(model, "all_tied_weights_keys", {})
    seen: set[int] = set()
    for name, weight in held.items():
        source = held.get(tied.get(name, ""))
        if id(weight) in seen or weight is source:
            continue
        if source is None or weight.device.type != "meta":  # off-loaded, what is tied is no longer one tensor
            seen.add(id(weight))
            yield from _plain(
                name, _offloaded(model, name) if weight.device.type == "meta" else weight.detach(), weight
            )


def _plain(name: str, values: Tensor | None, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    if values is None:
        yield name, weight.detach()
    elif hasattr(values, "__tensor_flatten__"):
        for part in values.__tensor_flatten__()[0]:
            inner = getattr(values, part)
            yield from _plain(f"{name}.{part}", inner, inner)
    else:
        yield name, values.as_subclass(Tensor)


def _offloaded(model: nn.Module, name: str) -> Tensor | None:
    """Return a weight that accelerate keeps elsewhere, by a hook of its module or of one around it; None if nowhere."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        owner: Any = model.get_submodule(".".join(parts[:depth]))
        hook = getattr(owner, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            held = getattr(one, "weights_map", None)
            if held is not None:
                try:
                    return torch.as_tensor(held[".".join(parts[depth:])])
                except KeyError:
                    continue
    return None


def checksum(values: Tensor) -> bytes:
    """Return what stands for the numbers of a plain tensor: some of them, and the sum of the bits of all.

    Numbers in half precision count as what they are in single precision, so that the precision that weights are loaded
    in makes no difference; of integers the bytes count. The sum is one of 64-bit integers, modulo 2^64: exact, and the
    same in any order, so of any number of threads and on any device.
    """
    if not values.is_floating_point():
        values = values.contiguous().reshape(-1).view(torch.uint8)
    flat = values.reshape(-1)
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, len(flat), CHUNK):
        total += _words(flat[start : start + CHUNK]).sum()
    stride = max(1, len(flat) // SAMPLES) | 1  # odd: it would stay in one column of most matrices
    some = torch.cat([flat[:FIRST], flat[::stride]])
    some = some.float() if some.is_floating_point() else some
    return some.cpu().numpy().tobytes() + int(total).to_bytes(8, "little", signed=True)


def _words(chunk: Tensor) -> Tensor:
    """Return the bits of up to CHUNK numbers as 64-bit integers, the last one filled up with zeros."""
    exact = chunk.float() if chunk.is_floating_point() else chunk
    lacking = -exact.nbytes % 8 // exact.element_size()
    if lacking:
        exact = torch.cat([exact, exact.new_zeros(lacking)])
    elif exact.storage_offset() * exact.element_size() % 8:
        exact = exact.clone()
    return exact.view(torch.int64)
