"""Search by a growing archive: predictors fitted to what was evaluated propose what to evaluate next.

Knows genomes and numbers, no networks: a problem (:class:`ArchiveProblem`) says what they mean.
"""

from __future__ import annotations

from ..operators import GenomeSpace
from .loop import ArchiveResult, ArchiveRound, archive_search
from .problem import ArchiveProblem, ArchiveSettings, Beliefs, Evaluation, Judgement, KnowsNoise
from .proposing import Proposal, Proposals, propose
from .seeds import seed_genomes

__all__ = [
    "ArchiveProblem", "ArchiveResult", "ArchiveRound", "ArchiveSettings", "Beliefs", "Evaluation", "GenomeSpace",
    "Judgement", "KnowsNoise", "Proposal", "Proposals", "archive_search", "propose", "seed_genomes",
]  # fmt: skip
