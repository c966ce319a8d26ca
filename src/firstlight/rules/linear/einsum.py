"""Einsum: sums over the letters of one operand alone, then products of two, from left to right, as torch does it."""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.graph.signal import Cotangent, Signal
from firstlight.rules.attention.keys import is_weights
from firstlight.rules.composed.tape import Tape
from firstlight.rules.gradients.gradient import whole
from firstlight.rules.gradients.leaning import at_rows, at_values
from firstlight.rules.linear import gram
from firstlight.rules.linear.affine import LETTERS, pair_einsum, product_of
from firstlight.rules.registry import WEIGHTS_IID, Call, Grads, rule


def letters_of(text: str, operands: Sequence[Signal]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, those of "..." spelled out."""
    text = text.replace(" ", "")
    left, _, right = text.partition("->")
    terms = left.split(",")
    if "..." in text:
        ranks = [s.ndim - len(t.replace("...", "")) for s, t in zip(operands, terms, strict=True) if "..." in t]
        dots = [c for c in LETTERS[::-1] if c not in text][: max(ranks)]
        terms = [
            t.replace("...", "".join(dots[len(dots) - (s.ndim - len(t.replace("...", ""))) :]))
            for s, t in zip(operands, terms, strict=True)
        ]
        right = right.replace("...", "".join(dots)) if "->" in text else right
    if "->" not in text:
        joined = "".join(terms)
        right = "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    return terms, right


@rule("einsum", assumes=(WEIGHTS_IID,), variadic=True, example="torch.einsum('bi,ij->bj', x, torch.randn(64, 32) / 8)")
def einsum(call: Call, equation: str, operands: tuple[Signal, ...]) -> Signal:
    """Any einsum of independent operands, from left to right."""
    terms, out = letters_of(equation, operands)
    if not _is_pair(terms, out):
        return _written_out(Tape(call), terms, out, operands)
    return product_of(call, gram.Product(operands[0], terms[0], operands[1], terms[1], out))


@einsum.adjoint
def _(call: Call, grad: Cotangent, out: Signal, equation: str, operands: tuple[Signal, ...]) -> Grads:
    terms, result = letters_of(equation, operands)
    if not _is_pair(terms, result):
        tape = Tape(call)
        of = tape.back({_written_out(tape, terms, result, operands).ident: [grad]})
        return {"operands": tuple(of(x) for x in operands)}
    g, (x, y) = whole(grad), operands
    rows = is_weights(x) and y.weights is None
    g = at_rows(g, out, x, y) if rows else g
    of = gram.Product(x, terms[0], y, terms[1], result)
    dx = gram.gradient(pair_einsum(g, result, y, terms[1], terms[0]), g, of)
    dy = gram.gradient(pair_einsum(g, result, x, terms[0], terms[1]), g, of)
    dy = at_values(dy, g, x) if rows else dy
    return {"operands": (Cotangent(dx, along=grad.along if rows else None), Cotangent(dy))}


def _is_pair(terms: Sequence[str], out: str) -> bool:
    """Whether it is one product of two operands none of which is summed, or cut to its diagonal, alone."""
    if len(terms) != 2 or any(len(set(t)) < len(t) for t in terms):
        return False
    return all(a in out or a in other for t, other in (terms, terms[::-1]) for a in t)


def _written_out(tape: Tape, terms: Sequence[str], out: str, operands: Sequence[Signal]) -> Signal:
    """Diagonals, sums, products of pairs and a change of order, one after the other."""
    parts = [
        _alone(tape, x, t, "".join((*terms[:k], out, *terms[k + 1 :])))
        for k, (x, t) in enumerate(zip(operands, terms, strict=True))
    ]
    x, letters = parts[0]
    for k in range(1, len(parts)):
        y, mine = parts[k]
        later = out + "".join(t for _, t in parts[k + 1 :])
        kept = out if k == len(parts) - 1 else "".join(a for a in dict.fromkeys(letters + mine) if a in later)
        x, letters = tape("einsum", f"{letters},{mine}->{kept}", x, y), kept
    return x if letters == out else tape("permute", x, tuple(letters.index(a) for a in out))


def _alone(tape: Tape, x: Signal, letters: str, others: str) -> tuple[Signal, str]:
    """An operand without the letters that it alone has, and with each letter once."""
    while twice := next((a for a in letters if letters.count(a) > 1), ""):
        first = letters.index(twice)
        second = letters.index(twice, first + 1)
        x = tape("diagonal", x, 0, first, second)
        letters = letters[:first] + letters[first + 1 : second] + letters[second + 1 :] + twice
    gone = tuple(i for i, a in enumerate(letters) if a not in others)
    if not gone:
        return x, letters
    return tape("sum", x, gone), "".join(a for a in letters if a in others)
