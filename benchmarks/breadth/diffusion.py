"""Architectures of diffusers, shrunk; random weights, no downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.breadth.candidate import Arguments, Candidate, named


def _steps() -> torch.Tensor:
    return torch.tensor([3, 400])


def _one(cls: str, inputs: Callable[[], Arguments], **own: Any) -> Candidate:
    def build() -> nn.Module:
        import diffusers

        return getattr(diffusers, cls)(**own)

    return Candidate(cls, "diffusers", build, inputs)


_IMAGE = named(sample=(2, 3, 16, 16))
_BLOCKS = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1}
CANDIDATES: tuple[Candidate, ...] = (
    _one("UNet2DConditionModel", named(sample=(2, 4, 16, 16), timestep=_steps, encoder_hidden_states=(2, 5, 16)),
         sample_size=16, cross_attention_dim=16, attention_head_dim=4, **_BLOCKS,
         down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
    _one("AutoencoderKL", _IMAGE, **_BLOCKS, down_block_types=("DownEncoderBlock2D",) * 2,
         up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4),
    _one("VQModel", _IMAGE, **_BLOCKS, down_block_types=("DownEncoderBlock2D",) * 2,
         up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, num_vq_embeddings=16),
    _one("AutoencoderTiny", _IMAGE, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
         num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)),
    _one("DiTTransformer2DModel", named(
        hidden_states=(2, 4, 8, 8), timestep=_steps, class_labels=lambda: torch.tensor([1, 2])),
        num_attention_heads=2, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, norm_num_groups=8),
    _one("PixArtTransformer2DModel", named(
        hidden_states=(2, 4, 8, 8), encoder_hidden_states=(2, 5, 16), timestep=_steps),
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        cross_attention_dim=16, caption_channels=16),
    _one("SD3Transformer2DModel", named(
        hidden_states=(2, 4, 8, 8), encoder_hidden_states=(2, 5, 32), pooled_projections=(2, 16), timestep=_steps),
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=16, out_channels=4),
    _one("FluxTransformer2DModel", named(
        hidden_states=(1, 16, 4), encoder_hidden_states=(1, 5, 32), pooled_projections=(1, 16),
        timestep=lambda: torch.tensor([0.4]), img_ids=(16, 3), txt_ids=(5, 3)),
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=[4, 4, 8]),
    _one("Transformer2DModel", named(hidden_states=(2, 16, 8, 8)), num_attention_heads=2, attention_head_dim=8,
         in_channels=16, num_layers=2, norm_num_groups=8),
    _one("PriorTransformer", named(
        hidden_states=(2, 16), timestep=_steps, proj_embedding=(2, 16), encoder_hidden_states=(2, 5, 16)),
        num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=16, num_embeddings=5,
        additional_embeddings=4),
    _one("UVit2DModel", named(
        input_ids=lambda: torch.randint(0, 30, (2, 8, 8)), encoder_hidden_states=(2, 5, 16),
        pooled_text_emb=(2, 16), micro_conds=(2, 5)),
        hidden_size=32, cond_embed_dim=16, micro_cond_encode_dim=8, micro_cond_embed_dim=40, encoder_hidden_size=16,
        vocab_size=32, codebook_size=30, in_channels=32, block_out_channels=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, sample_size=8, block_num_heads=4),
)  # fmt: skip
