"""Networks that a study trains first: static ones to compare with, the paper's exits, and what the search adds."""

from __future__ import annotations

from ...spaces.quantized import BIT_PAIRS, SEGMENT_BITS, QuantizedExitSpace, QuantizedNetwork

PUBLISHED_EXITS = ("D,F,I,K", "A,E,F,H,K", "G,K", "C,I,K")
"""Exits of published networks (Zniber et al., arXiv:2512.04705): the most accurate of the 13 mounting-point models, the
starred one of their second table, and the two cheapest of their Pareto set."""

_PUBLISHED_BITS = (8, 8)


def bit_pairs(space: QuantizedExitSpace) -> tuple[tuple[int, int], ...]:
    """(backbone, heads) bits that a space offers to networks of one precision throughout, most bits first."""
    if space.bits == "pairs":
        return tuple(sorted(BIT_PAIRS, reverse=True))
    return tuple(
        (b, h) for b in sorted(SEGMENT_BITS, reverse=True) for h in sorted(SEGMENT_BITS, reverse=True)
    )


def static_networks(space: QuantizedExitSpace) -> tuple[QuantizedNetwork, ...]:
    """The whole backbone with its final exit alone, one fully connected layer, at each pair of bits."""
    return tuple(
        space.network("K", head_types=1, bits=bits, head_bits=head_bits)
        for bits, head_bits in bit_pairs(space)
    )


def fewest_seeds(space: QuantizedExitSpace) -> int:
    """What a study has to train to begin with: every static network, and one with exits."""
    return len(bit_pairs(space)) + 1


def initial_networks(space: QuantizedExitSpace, n: int) -> tuple[QuantizedNetwork, ...]:
    """The static networks, and published exits for up to half of what ``n`` leaves, at least one.

    ``n`` is at least :func:`fewest_seeds`.
    """
    static = static_networks(space)
    bits, head_bits = _PUBLISHED_BITS
    published = [space.network(letters, bits=bits, head_bits=head_bits) for letters in PUBLISHED_EXITS]
    return (*static, *published[: max(1, (n - len(static)) // 2)])
