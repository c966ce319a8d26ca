"""Architectures of transformers and diffusers with random weights from small configurations; no downloads."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from tests.zoo.entry import Arguments, Entry

IDS = 60


def ids(_width: int) -> Arguments:
    return (), {"input_ids": torch.randint(1, IDS, (4, 10))}


def masked_ids(_width: int) -> Arguments:
    mask = torch.ones(4, 10, dtype=torch.long)
    mask[0, 7:] = 0
    return (), {"input_ids": torch.randint(1, IDS, (4, 10)), "attention_mask": mask}


def two_ids(_width: int) -> Arguments:
    return (), {"input_ids": torch.randint(1, IDS, (4, 10)), "decoder_input_ids": torch.randint(1, IDS, (4, 6))}


def pixels(size: int) -> Callable[[int], Arguments]:
    return lambda _width: ((), {"pixel_values": torch.randn(4, 3, size, size)})


def noisy(_width: int) -> Arguments:
    return (torch.randn(2, 3, 16, 16), torch.tensor([3, 400])), {}


def _gpt2(depth: int, width: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=IDS, n_positions=16, n_embd=width, n_layer=depth, n_head=4))


def _llama_sizes(depth: int, width: int) -> dict[str, Any]:
    return {
        "vocab_size": IDS,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16,
    }


def _llama(depth: int, width: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_llama_sizes(depth, width)))


def _mixtral(depth: int, width: int) -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**_llama_sizes(depth, width), num_local_experts=4))


def _bert(depth: int, width: int) -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=IDS,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=16,
    )
    return BertModel(config)


def _t5(depth: int, width: int) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=IDS,
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=depth,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def _albert(depth: int, width: int) -> nn.Module:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=IDS,
        embedding_size=width // 2,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=16,
    )
    return AlbertModel(config)


def _vit(depth: int, width: int) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        intermediate_size=2 * width,
        image_size=16,
        patch_size=4,
    )
    return ViTModel(config)


def _convnext(depth: int, width: int) -> nn.Module:
    from transformers import ConvNextConfig, ConvNextModel

    return ConvNextModel(
        ConvNextConfig(hidden_sizes=[width, 2 * width], depths=[depth, depth], num_stages=2, patch_size=2)
    )


def _swin(depth: int, width: int) -> nn.Module:
    from transformers import SwinConfig, SwinModel

    config = SwinConfig(
        image_size=32, patch_size=2, embed_dim=width, depths=[depth, depth], num_heads=[2, 4], window_size=4
    )
    return SwinModel(config)


def _resnet(depth: int, width: int) -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=width, hidden_sizes=[width, 2 * width], depths=[depth, depth], layer_type="basic"
    )
    return ResNetModel(config)


def _mamba(depth: int, width: int) -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=IDS, hidden_size=width, num_hidden_layers=depth, state_size=8))


def _unet(depth: int, width: int) -> nn.Module:
    from diffusers import UNet2DModel  # pyright: ignore[reportPrivateImportUsage]

    return UNet2DModel(
        sample_size=16,
        layers_per_block=depth,
        block_out_channels=(width, 2 * width),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def _entry(name: str, build: Callable[[int, int], nn.Module], inputs: Callable[[int], Arguments], *tags: str) -> Entry:
    return Entry(f"hf_{name}", build, inputs, 32, (1, 3), frozenset({"pretrained", *tags}))


ENTRIES: tuple[Entry, ...] = ()
if find_spec("transformers") is not None:
    ENTRIES += (
        _entry("gpt2", _gpt2, ids, "attention", "norm", "tied", "dropout"),
        _entry("llama", _llama, ids, "attention", "norm"),
        _entry("mixtral", _mixtral, ids, "attention", "norm", "routing"),
        _entry("bert", _bert, masked_ids, "attention", "norm", "dropout"),
        _entry("t5", _t5, two_ids, "attention", "norm", "tied", "dropout"),
        _entry("albert", _albert, ids, "attention", "norm", "shared"),
        _entry("vit", _vit, pixels(16), "attention", "norm"),
        _entry("convnext", _convnext, pixels(16), "conv", "norm"),
        _entry("swin", _swin, pixels(32), "attention", "norm"),
        _entry("resnet", _resnet, pixels(32), "conv", "norm"),
        _entry("mamba", _mamba, ids, "recurrent", "norm"),
    )
if find_spec("diffusers") is not None:
    ENTRIES += (_entry("unet2d", _unet, noisy, "conv", "attention", "norm"),)
