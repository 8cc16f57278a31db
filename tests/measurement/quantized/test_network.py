"""The trained module is the network that the space counts."""

import numpy as np
import pytest
import torch
from torch import nn

from hadas.errors import SpaceError
from hadas.measurement.quantized.network import (
    Block,
    ConvNorm,
    QuantizedExitNet,
    network_module,
    start_module,
)
from hadas.spaces.quantized import QuantizedExitSpace, QuantizedNetwork, edge_space

TINY = QuantizedExitSpace("tiny", resolution=16, width=0.1, bits="per-segment")
MIXED = (8, 8, 4, 4, 8, 8, 4, 8, 8, 8, 4)


def n_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("letters", "types"), [("D,F,I", (1, 1, 1, 1)), ("A,J", (2, 1, 2)), ("", (1,))])
def test_parameters_are_those_that_the_space_counts(letters: str, types: tuple[int, ...]) -> None:
    space = edge_space("mobilenetv2")
    network = space.network(letters, head_types=types)
    with torch.device("meta"):
        net = network_module(space, network)
    stages = space.stages(network)
    assert n_params(net.heads) == sum(stage.head.params for stage in stages)
    assert n_params(net) - n_params(net.heads) == stages[-1].cumulative_params == 1_388_288


def test_macs_are_those_that_the_space_counts() -> None:
    network = TINY.network("C,H", head_types=(2, 1, 2))
    net = network_module(TINY, network).eval()
    macs = 0

    def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal macs
        macs += out[0].numel() * int(np.prod(module.weight.shape[1:]))

    # A convolution's weights are read by its ConvNorm, so that is what runs.
    for module in net.modules():
        if isinstance(module, ConvNorm):
            module.bn.register_forward_hook(
                lambda _, __, out, conv=module.conv: count(conv, None, out)  # type: ignore[misc]
            )
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    for quantizer in net.modules():
        if hasattr(quantizer, "limit"):
            quantizer.limit = 1.0
    with torch.no_grad():
        net(torch.zeros(1, 3, 16, 16))
    stages = TINY.stages(network)
    assert macs == stages[-1].cumulative_macs + sum(stage.head.macs for stage in stages)


def trained_pass(net: QuantizedExitNet) -> dict[str, torch.Tensor]:
    """What every quantizer of a network gives in a training pass, by name."""
    found = {}
    for name, module in net.named_modules():
        if hasattr(module, "limit"):
            module.register_forward_hook(lambda _, __, out, name=name: found.update({name: out.detach()}))
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    net.train()
    net(images)
    return found


def test_every_map_has_the_levels_of_its_segment() -> None:
    network = QuantizedNetwork("tiny", (0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 1), MIXED, 4)
    torch.manual_seed(0)
    found = trained_pass(network_module(TINY, network))
    bits_of = [*MIXED[:10], MIXED[10], MIXED[10]]
    for index, bits in enumerate(bits_of):
        hidden = found[f"blocks.{index}.depthwise.output"]
        assert len(hidden.unique()) <= 2**bits
        assert float(hidden.min()) >= 0.0
        assert len(found[f"blocks.{index}.output"].unique()) <= 2**bits - 1
    # A segment of fewer bits than the one before rounds what it reads, and no other does.
    assert sorted(name for name in found if name.endswith("entry")) == [
        "blocks.10.entry", "blocks.2.entry", "blocks.6.entry", "heads.B1.entry", "heads.H2.entry",
    ]  # fmt: skip


def test_lower_bits_reach_the_logits() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = []
    for bits, head_bits in ((8, 8), (8, 4), (4, 8)):
        torch.manual_seed(0)
        seen.append(network_module(TINY, TINY.network("E", bits=bits, head_bits=head_bits)).train()(images))
    assert seen[0].shape == (4, 2, 10)
    assert not torch.allclose(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])


def test_a_start_begins_with_residual_blocks_as_shortcuts() -> None:
    net = start_module(TINY, 0)
    x = torch.rand(2, TINY.blocks[1].out_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    block = net.blocks[2]
    assert isinstance(block, Block)
    assert block.has_residual
    assert torch.equal(block.eval()(x), x)
    again, other = start_module(TINY, 0).state_dict(), start_module(TINY, 1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in net.state_dict().items())
    assert not torch.equal(again["stem.conv.weight"], other["stem.conv.weight"])


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"belongs to space 'mobilenetv2', not to 'tiny'"):
        network_module(TINY, edge_space("mobilenetv2").network("D"))
    binary = QuantizedNetwork("tiny", (0,) * 10 + (1,), (1,) * 11, 8)
    with pytest.raises(SpaceError, match="1 bits cannot be trained; give 2 to 16, or 32"):
        network_module(TINY, binary)
