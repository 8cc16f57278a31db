"""Which random backbones a training step trains: any, or the best or worst near a target of MACs.

Attentive sampling after AttentiveNAS (Wang et al., CVPR 2021): draw a target, compare a few
backbones that meet it, train the one on the Pareto front's best or worst side.
"""

from __future__ import annotations

import numpy as np

from ...spaces import Backbone, MBConvSpace
from ...spaces.mbconv import backbone_macs

N_PRIOR = 1000
"""Random backbones that the distribution of MACs is estimated from."""
N_BINS = 25
"""Bins of that distribution; AttentiveNAS: about as many steps of 25 million MACs."""
MAX_DRAWS = 50
"""Backbones drawn per candidate at most: two times what a bin needs on average."""
_PRIOR_STREAM = 3


class NearTarget:
    """Draws backbones that need about as many MACs as a random target.

    The bins hold equal shares of the space's random backbones, so that targets are spread as
    those are, and each is met as easily as any other.
    """

    def __init__(self, space: MBConvSpace, n_classes: int, seed: int) -> None:
        """Estimate the distribution of MACs over the space; depends on ``seed`` alone."""
        self._space = space
        self._n_classes = n_classes
        genomes = space.sample(N_PRIOR, np.random.default_rng([seed, 0, _PRIOR_STREAM]))
        macs = [self._macs(space.decode(genome)) for genome in genomes]
        self.edges = np.quantile(np.array(macs, dtype=np.float64), np.linspace(0.0, 1.0, N_BINS + 1))

    def candidates(self, k: int, rng: np.random.Generator) -> list[Backbone]:
        """k random backbones near one random target.

        The target is uniform within a uniformly drawn bin.  Backbones are drawn until k lie in that
        bin; if ``MAX_DRAWS`` per candidate do not suffice, those nearest to the target fill up.
        """
        chosen_bin = int(rng.integers(N_BINS))
        low, high = self.edges[chosen_bin], self.edges[chosen_bin + 1]
        target = rng.uniform(low, high)
        inside: list[Backbone] = []
        outside: list[tuple[float, int, Backbone]] = []
        for number in range(MAX_DRAWS * k):
            backbone = self._space.decode(self._space.sample(1, rng)[0])
            macs = self._macs(backbone)
            if low <= macs <= high:
                inside.append(backbone)
                if len(inside) == k:
                    return inside
            else:
                outside.append((abs(macs - target), number, backbone))
        return inside + [backbone for _, _, backbone in sorted(outside)[: k - len(inside)]]

    def _macs(self, backbone: Backbone) -> int:
        return backbone_macs(self._space.macro, backbone, n_classes=self._n_classes)
