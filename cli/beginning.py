"""Beginning a study: its file, the demo, and what a backbone space offers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..errors import ConfigError
from .edge import describe_edge_space, edge_demo, edge_file
from .opening import StudyFile, open_study, write_study_file
from .printing import console, print_table
from .steps import run_whole_loop


def init(
    study: StudyFile,
    preset: Annotated[
        str | None,
        typer.Option(
            help="demo: minutes on a laptop; smoke: seconds, to try things out; gpu: CIFAR in the AttentiveNAS "
            "space; edge, edge-smoke, edge-gpu: the same for exits, quantization and mapping on an edge "
            "accelerator.  [default: demo, or with --checkpoint what suits it]"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A supernet's weights: a published AttentiveNAS file, or one that hadas trained. Used unchanged if "
            "it is for as many classes as the images have, else fine-tuned with a fresh classifier."
        ),
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take state_dict_ema of the checkpoint.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Images: digits (embedded), cifar10, cifar100, tiny-imagenet.")
    ] = None,
    data_path: Annotated[Path | None, typer.Option(help="Folder that holds the images.")] = None,
) -> None:
    """Write a commented study file; check the checkpoint that it is to start from."""
    if study.is_file() and not force:
        raise ConfigError(f"{study} exists; --force overwrites it")
    changes: dict[str, Any] = {}
    if checkpoint is not None:
        _check_dvfs(preset, "--checkpoint: networks of this system train their own start")
        from ..study.adoption import adopt_checkpoint

        changes, found = adopt_checkpoint(checkpoint, data=data, data_path=data_path, ema=ema)
        console.print(escape(found), soft_wrap=True, highlight=False)
        preset = preset or ("gpu" if changes["space"] == "attentivenas" else "demo")
    elif ema:
        raise ConfigError("--ema chooses weights within a checkpoint; name one with --checkpoint FILE")
    elif data or data_path:
        folder = None if data_path is None else str(data_path.resolve())
        changes = {"data": {k: v for k, v in (("name", data), ("path", folder)) if v}}
    preset = preset or "demo"
    if data_path is not None:
        _check_images(changes.get("data", {}).get("name") or _data_name(_preset(preset)), data_path)
    write_study_file(study, _study_text(study.name, preset, changes))
    console.print(escape(f"Wrote {study}. Next: hadas run {study}"), soft_wrap=True)


def _is_edge_preset(preset: str | None) -> bool:
    from ..study.edge.config import PRESETS

    return preset in PRESETS


def _check_dvfs(preset: str | None, reason: str) -> None:
    if _is_edge_preset(preset):
        raise ConfigError(f"preset '{preset}' is of 'system: edge', which knows no {reason}; leave it out")


def _preset(name: str) -> Mapping[str, Any]:
    from ..study.config import PRESETS
    from ..study.edge.config import PRESETS as EDGE_PRESETS

    return {**PRESETS, **EDGE_PRESETS}.get(name, {})


def _study_text(name: str, preset: str, changes: Mapping[str, Any]) -> str:
    from ..study.config import PRESETS, template
    from ..study.edge.config import PRESETS as EDGE_PRESETS

    if _is_edge_preset(preset):
        return edge_file(name, preset, changes)
    if preset not in PRESETS:
        raise ConfigError(f"no preset '{preset}'; known: {sorted([*PRESETS, *EDGE_PRESETS])}")
    return template(name, preset, changes)


def _data_name(preset: Mapping[str, Any]) -> str:
    from ..study.config import StudyConfig

    name: str = preset.get("data", {}).get("name", StudyConfig().data.name)
    return name


def _check_images(name: str, folder: Path) -> None:
    """Refuse a folder of images that is not there, or that the study would never look into."""
    if name == "digits":
        raise ConfigError(
            f"--data-path {folder}: the digits come with hadas, no folder is read for them; name the images that it "
            "holds with --data cifar10, cifar100 or tiny-imagenet"
        )
    if not folder.is_dir():
        raise ConfigError(f"--data-path {folder}: no such folder; name the one that holds {name}")


_DEMO_TAKES = {"demo": "about 8 minutes on 2 cores", "smoke": "less than a minute on 2 cores"}


def demo(
    directory: Annotated[
        Path | None,
        typer.Option(
            help="Where the study, its store and its report go.  [default: runs/demo, or runs/edge]"
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="demo: minutes on 2 cores; smoke: seconds.")] = "demo",
    system: Annotated[
        str,
        typer.Option(
            help="dvfs: backbone, exits and clocks on a Jetson; edge: exits, quantization and mapping on a "
            "quad-core edge accelerator."
        ),
    ] = "dvfs",
) -> None:
    """Run the whole loop on the bundled digits images, with a simulated Jetson TX2 GPU or a modelled accelerator."""
    if system == "edge":
        edge_demo(directory or Path("runs/edge"), preset)
    elif system == "dvfs":
        _dvfs_demo(directory or Path("runs/demo"), preset)
    else:
        raise ConfigError(f"--system {system}: no such system; known: dvfs, edge")


def _dvfs_demo(directory: Path, preset: str) -> None:
    from ..study.config import PRESETS, load_config, template, validate_config

    path = directory / "study.yaml"
    if preset not in _DEMO_TAKES:
        raise ConfigError(f"no preset '{preset}'; known: {sorted(_DEMO_TAKES)}")
    takes = _DEMO_TAKES[preset]
    if not path.is_file():
        write_study_file(path, template(path.name, preset))
    elif load_config(path) != validate_config(PRESETS[preset], source=f"preset {preset}"):
        takes = f"{path} is there and differs from preset '{preset}', so the study in it continues"
    console.print(
        "The whole loop on real images (scikit-learn's digits) and a [bold]SIMULATED[/] Jetson TX2 GPU: "
        + escape(
            f"{takes}, nothing more to download. Interrupt at any time; the same command continues. "
            f"Study file: {path}"
        ),
        soft_wrap=True,
    )
    run_whole_loop(open_study(path))


def space(
    name: Annotated[
        str, typer.Argument(help="attentivenas or mini; of system edge: mobilenetv2 or mobilenetv2-small")
    ],
    classes: Annotated[int, typer.Option(min=2, help="Classes of the classifier.")] = 1000,
) -> None:
    """Describe a space: its size, its genes, its named backbones or mounting points and their work."""
    from ..spaces import space_by_name
    from ..spaces.quantized import EDGE_SPACES

    if name in EDGE_SPACES:
        describe_edge_space(name)
        return
    chosen = space_by_name(name)
    console.print(
        f"{name}: {chosen.cardinality:,} backbones of up to {chosen.max_blocks} blocks, "
        f"{len(chosen.variables)} genes, exits after block {chosen.first_exit} or later"
    )
    print_table("", ("gene", "choices"), ((v.name, " ".join(map(str, v.choices))) for v in chosen.variables))
    presets = []
    for preset, backbone in chosen.presets.items():
        work = chosen.workload(backbone, n_classes=classes)
        presets.append(
            (
                preset,
                str(backbone.n_blocks),
                str(work.n_positions),
                f"{work.macs / 1e6:.1f}",
                f"{work.params / 1e6:.2f}",
                str(backbone.resolution),
            )
        )
    columns = ("preset", "blocks", "exit positions", "MACs, M", "parameters, M", "resolution")
    print_table(f"at {classes} classes", columns, presets)
