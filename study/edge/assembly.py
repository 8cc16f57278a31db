"""From a study file to working parts: space, images, accelerator, cost model, meter.

Everything is built when first asked for, so that a command pays only for what it uses.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...datasets.store import Store
from ...errors import ConfigError
from ...spaces.quantized import QuantizedExitSpace, edge_space
from .config import EdgeConfig
from .judging import Limits
from .mapping import SegmentMapper

if TYPE_CHECKING:
    from ...datasets.images import ImageData
    from ...datasets.quantized_store import QuantizedStore
    from ...measurement.accelerator.cores import Accelerator
    from ...measurement.accelerator.cost_model import AcceleratorCostModel
    from ...measurement.accelerator.table import LayerTable
    from ...measurement.quantized.meter import QuantizedMeter
    from ...measurement.quantized.recipes import QuantizedRecipe
    from ...search.archive import ArchiveSettings


class EdgeAssembly:
    """The parts that one configuration names."""

    def __init__(self, config: EdgeConfig, directory: Path, store: Store) -> None:
        """Args: directory: where relative paths of the configuration start."""
        self.config = config
        self.directory = directory
        self.store = store

    def check(self) -> None:
        """Refuse a configuration whose parts do not exist, before anything is stored or trained.

        Raises:
            ConfigError, SpaceError: what is wrong, by name.
        """
        _ = self.recipe, self.space, self.accelerator, self.archive_settings

    @cached_property
    def space(self) -> QuantizedExitSpace:
        """What is searched: exits, heads and bits.  Cores follow from these (see :mod:`.mapping`)."""
        return edge_space(self.config.space, bits=self.config.bits)

    @cached_property
    def data(self) -> ImageData:
        """The images.

        Raises:
            DataError: missing or unreadable.
        """
        from ...datasets.images import load_images

        data = self.config.data
        path = None if data.path is None else self.directory / data.path
        return load_images(data.name, path=path, limit=data.limit)

    @cached_property
    def accelerator(self) -> Accelerator:
        """What costs are modelled for: the preset, with what the study file overrides."""
        from ...measurement.accelerator.cores import CORE_STYLES, edge_accelerator

        chosen = self.config.accelerator
        accelerator = edge_accelerator(chosen.preset)
        changes = {
            name: getattr(chosen, name)
            for name in ("link_bits_per_cycle", "link_pj_per_bit", "core_hz")
            if getattr(chosen, name) is not None
        }
        sources = dict(accelerator.sources) | dict.fromkeys(changes, "study file")
        name = accelerator.name
        if chosen.cores is not None:
            changes["cores"] = tuple(CORE_STYLES[style] for style in chosen.cores)
            name = "own cores"
        return replace(accelerator, name=name, sources=tuple(sources.items()), **changes)

    @property
    def cores_used(self) -> str:
        """Which cores networks run on, in words: one may be all that is used of many."""
        names = [style.name for style in self.accelerator.cores]
        if len(names) == 1:
            return f"1 core ({names[0]})"
        if len(set(names)) == 1:
            return (
                f"{len(names)} equal cores ({names[0]}), of which core 0 runs everything: layers run one after another, "
                "so another core only adds transfers"
            )
        if self.config.accelerator.map_segments:
            return (
                f"{len(names)} cores ({', '.join(names)}); each segment runs where its network costs least, on the first "
                "core of a style"
            )
        return (
            f"{len(names)} cores ({', '.join(names)}), of which core 0 ({names[0]}) alone is used; to use the others, set "
            "'accelerator.map_segments: true'"
        )

    @cached_property
    def table(self) -> LayerTable:
        """Costs of layers, kept in the store."""
        from ...measurement.accelerator.table import LayerTable

        accelerator = self.config.accelerator
        return LayerTable(self.store, lpf_limit=accelerator.lpf_limit, n_workers=accelerator.n_workers)

    @cached_property
    def costs(self) -> AcceleratorCostModel:
        """Costs of networks, from the table."""
        from ...measurement.accelerator.cost_model import AcceleratorCostModel

        n_cores = len(self.accelerator.cores) if self.config.accelerator.map_segments else 1
        space = edge_space(self.config.space, bits=self.config.bits, n_cores=n_cores)
        return AcceleratorCostModel(space, self.accelerator, self.table)

    @cached_property
    def mapper(self) -> SegmentMapper:
        """The cores of each network; the first for all where the study does not map segments."""
        return SegmentMapper(self.costs, self.limits)

    @cached_property
    def recipe(self) -> QuantizedRecipe:
        """How networks are trained.

        Raises:
            ConfigError: a field that a recipe does not have, or a value that it cannot have.
        """
        from ...measurement.quantized.recipes import QUANTIZED_RECIPES

        preset, changes = QUANTIZED_RECIPES[self.config.accuracy.preset], self.config.accuracy.recipe
        known = [field.name for field in fields(preset)]
        if unknown := sorted(set(changes) - set(known)):
            raise ConfigError(f"'accuracy.recipe': no field {', '.join(unknown)}; known: {', '.join(known)}")
        return replace(preset, **changes)

    @cached_property
    def rows(self) -> QuantizedStore:
        """What was trained, by this study and others."""
        from ...datasets.quantized_store import QuantizedStore

        return QuantizedStore(self.store)

    @cached_property
    def meter(self) -> QuantizedMeter:
        """Trains networks with their quantizers."""
        from ...measurement.quantized.meter import QuantizedMeter

        accuracy = self.config.accuracy
        return QuantizedMeter(
            self.space, self.data, self.recipe, directory=self.directory / "weights", device=accuracy.device,
            n_workers=accuracy.n_workers,
        )  # fmt: skip

    @cached_property
    def limits(self) -> Limits:
        """What networks must keep to."""
        return Limits.of(self.config.search.constraints)

    @cached_property
    def archive_settings(self) -> ArchiveSettings:
        """How much the archive search may spend."""
        from ...search.archive import ArchiveSettings

        search, learning = self.config.search, self.config.learning
        return ArchiveSettings(
            seeds=learning.seeds, rounds=learning.rounds, batch=learning.batch, population=search.population,
            generations=search.generations, draws=learning.draws, information_share=learning.information_share,
            strategy=learning.strategy, stop_gain=learning.stop_gain, stop_rounds=learning.stop_rounds,
        )  # fmt: skip
