"""Selectors and repairs by name: adding one is a function and a line here."""

from rectilinear.ops.cut import repairs, selectors
from rectilinear.ops.cut.kl import kl
from rectilinear.ops.cut.repairs import Repair
from rectilinear.ops.cut.selectors import Selector
from rectilinear.ops.cut.span import span

SELECTORS: dict[str, Selector] = {
    "kl": kl,
    "linearity": selectors.linearity,
    "increment": selectors.increment,
    "bi": selectors.bi,
    "angular": selectors.angular,
    "span": span,
    "loss": selectors.loss,
    "reverse": selectors.reverse,
    "random": selectors.random,
}

REPAIRS: dict[str, Repair] = {
    "refit": repairs.refit,
    "none": repairs.none,
    "linear": repairs.linear,
    "patch": repairs.patch,
    "scalar": repairs.scalar,
    "fold": repairs.fold,
    "fold-cosine": repairs.fold_cosine,
}
