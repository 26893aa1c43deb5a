"""Which position of the dense model's stream each layer of a cut model answers to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rectilinear.core.spans import spans_of
from rectilinear.errors import ResultError
from rectilinear.models.stack import is_block
from rectilinear.results import Plan


@dataclass(frozen=True)
class Place:
    """A layer of the cut model. Its output stands for the dense stream at `position`; block: it is a linear block.

    before_cut: layers were taken out right after it, with nothing in their place.
    """

    layer: nn.Module
    position: int
    block: bool
    before_cut: bool


def places(stack: nn.ModuleList, plan: Plan) -> tuple[Place, ...]:
    """Return one place for each layer of a cut model's stack, in order.

    After a removed span stand no blocks, one for the whole span, or one for each of its layers. Raises ResultError
    where the stack is not what the plan leaves.
    """
    spans = {span.start: span for span in spans_of(plan.remove)}
    found: list[Place] = []
    queue = list(stack)
    dense = 0
    while dense < plan.layers and (queue or dense in spans):
        span = spans.get(dense)
        if span is None:
            after = spans.get(dense + 1)
            bare = after is not None and not (len(queue) > 1 and is_block(queue[1]))
            found.append(Place(queue.pop(0), after.stop if after and bare else dense + 1, False, bare))
            dense += 1
            continue
        blocks = 0
        while blocks < len(queue) and blocks < len(span) and is_block(queue[blocks]):
            blocks += 1
        if blocks == 1:
            found.append(Place(queue.pop(0), span.stop, True, False))
        elif blocks == len(span):
            found += [Place(queue.pop(0), dense + i + 1, True, False) for i in range(blocks)]
        elif blocks:
            break
        dense = span.stop
    if queue or dense < plan.layers:
        raise ResultError(
            f"expected what the plan leaves of {plan.layers} layers without {len(plan.remove)}, got a model of "
            f"{len(stack)} layers that is not that: heal the model that was saved beside the plan"
        )
    return tuple(found)
