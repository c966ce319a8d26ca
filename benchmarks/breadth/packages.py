"""Networks of small packages (benchmarks/requirements.txt), as their own pages show them, where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from benchmarks.breadth.candidate import IDS, Arguments, Candidate, tensor, tokens


def _one(module: str, cls: str, inputs: Callable[[], Arguments], *args: Any, **own: Any) -> Candidate:
    def build() -> nn.Module:
        return getattr(importlib.import_module(module), cls)(*args, **own)

    return Candidate(f"{module.partition('.')[0]} {cls}", module.partition(".")[0], build, inputs)


def _language(**own: Any) -> nn.Module:
    x = importlib.import_module("x_transformers")
    return x.TransformerWrapper(num_tokens=IDS, max_seq_len=32, attn_layers=x.Decoder(dim=32, depth=2, heads=4, **own))


def _x(name: str, **own: Any) -> Candidate:
    return Candidate(f"x_transformers {name}", "x_transformers", lambda: _language(**own), tokens(4, 16))


def _graph(nodes: int = 30, features: int = 16) -> Callable[[], Arguments]:
    return lambda: ((torch.randn(nodes, features), torch.randint(nodes, (2, 90))), {})


def _points() -> Arguments:
    return (torch.randn(2, 12, 16), torch.randn(2, 12, 3)), {}


def _layers(module: str, cls: str, inputs: Callable[[], Arguments], count: int = 2, **own: Any) -> Candidate:
    def build() -> nn.Module:
        kind = getattr(importlib.import_module(module), cls)
        return nn.Sequential(*(kind(**own) for _ in range(count)))

    return Candidate(f"{module} {cls}", module, build, inputs)


def _mamba() -> nn.Module:
    m = importlib.import_module("mambapy.mamba")
    return m.Mamba(m.MambaConfig(d_model=32, n_layers=2))


_IMAGE = tensor(2, 16, 8, 8)
_SEQUENCE = tensor(2, 16, 32)
_ALL: tuple[Candidate, ...] = (
    _x("rotary", rotary_pos_emb=True), _x("alibi, GLU", alibi_pos_bias=True, ff_glu=True),
    _x("RMSNorm, SwiGLU", use_rmsnorm=True, ff_swish=True, ff_glu=True), _x("sandwich norm", sandwich_norm=True),
    _x("relu², no bias", ff_relu_squared=True, ff_no_bias=True), _x("gated residual", gate_residual=True),
    _x("queries and keys normalised", attn_qk_norm=True), _x("talking heads", attn_pre_talking_heads=True),
    _x("T5 bias, macaron", rel_pos_bias=True, macaron=True), _x("one head of values", attn_one_kv_head=True),
    _one("linformer", "Linformer", _SEQUENCE, dim=32, seq_len=16, depth=2, heads=4, k=8),
    _one("performer_pytorch", "Performer", _SEQUENCE, dim=32, depth=2, heads=4, dim_head=8, nb_features=16),
    _one("nystrom_attention", "Nystromformer", _SEQUENCE, dim=32, dim_head=8, heads=4, depth=2, num_landmarks=4),
    _one("linear_attention_transformer", "LinearAttentionTransformer", _SEQUENCE, dim=32, heads=4, depth=2,
         max_seq_len=16),
    _one("local_attention", "LocalTransformer", tokens(4, 16), num_tokens=IDS, dim=32, depth=2, max_seq_len=16,
         local_attn_window_size=4, causal=True),
    _one("sinkhorn_transformer", "SinkhornTransformer", _SEQUENCE, dim=32, heads=4, depth=2, bucket_size=4),
    _one("reformer_pytorch", "Reformer", _SEQUENCE, dim=32, depth=2, heads=4, bucket_size=4, lsh_dropout=0.0),
    _one("routing_transformer", "RoutingTransformer", _SEQUENCE, dim=32, heads=4, depth=2, max_seq_len=16,
         window_size=8),
    _one("charformer_pytorch", "GBST", tokens(4, 24), num_tokens=IDS, dim=32, max_block_size=3, downsample_factor=3),
    _one("feedback_transformer_pytorch", "FeedbackTransformer", tokens(2, 6), num_tokens=IDS, dim=32, depth=2,
         seq_len=2, mem_len=4, dim_head=8, heads=4),
    _one("memory_efficient_attention_pytorch", "Attention", _SEQUENCE, dim=32, dim_head=8, heads=4, causal=True,
         memory_efficient=True, q_bucket_size=4, k_bucket_size=4),
    _one("g_mlp_pytorch", "gMLP", tokens(4, 16), num_tokens=IDS, dim=32, depth=2, seq_len=16),
    _one("g_mlp_pytorch", "gMLPVision", tensor(2, 3, 16, 16), image_size=16, patch_size=4, num_classes=10, dim=32,
         depth=2),
    _one("mlp_mixer_pytorch", "MLPMixer", tensor(2, 3, 16, 16), image_size=16, channels=3, patch_size=4, dim=32,
         depth=2, num_classes=10),
    _one("res_mlp_pytorch", "ResMLP", tensor(2, 3, 16, 16), image_size=16, patch_size=4, dim=32, depth=2,
         num_classes=10),
    _one("perceiver_pytorch", "Perceiver", tensor(2, 8, 8, 3), input_channels=3, input_axis=2, num_freq_bands=3,
         max_freq=4.0, depth=2, num_latents=8, latent_dim=32, cross_heads=1, latent_heads=4, num_classes=10),
    _one("conformer", "Conformer", _SEQUENCE, dim=32, depth=2, dim_head=8, heads=4),
    _one("iTransformer", "iTransformer", tensor(2, 24, 5), num_variates=5, lookback_len=24, dim=32, depth=2, heads=4,
         dim_head=8, pred_length=(6,)),
    _one("soft_moe_pytorch", "SoftMoE", _SEQUENCE, dim=32, seq_len=16, num_experts=4),
    _one("st_moe_pytorch", "MoE", _SEQUENCE, dim=32, num_experts=4),
    _one("mixture_of_experts", "MoE", _SEQUENCE, dim=32, num_experts=4),
    _one("colt5_attention", "ConditionalRoutedFeedForward", _SEQUENCE, 32, num_heavy_tokens=4),
    _one("product_key_memory", "PKM", _SEQUENCE, dim=32, heads=2, dim_head=16, num_keys=8, topk=4),
    _one("vector_quantize_pytorch", "VectorQuantize", _SEQUENCE, dim=32, codebook_size=16),
    _one("vector_quantize_pytorch", "FSQ", tensor(2, 16, 3), [8, 5, 5]),
    _one("axial_attention", "AxialAttention", _IMAGE, dim=16, dim_index=1, heads=4, num_dimensions=2),
    _one("lambda_networks", "LambdaLayer", _IMAGE, dim=16, dim_out=16, r=5, dim_k=8, heads=4, dim_u=1),
    _one("halonet_pytorch", "HaloAttention", _IMAGE, dim=16, block_size=4, halo_size=2, dim_head=8, heads=2),
    _one("bottleneck_transformer_pytorch", "BottleStack", _IMAGE, dim=16, fmap_size=8, dim_out=32, proj_factor=4,
         heads=2, dim_head=8, num_layers=2),
    _one("glom_pytorch", "Glom", tensor(2, 3, 16, 16), dim=32, levels=3, image_size=16, patch_size=4),
    _one("siren_pytorch", "SirenNet", tensor(32, 2), dim_in=2, dim_hidden=32, dim_out=3, num_layers=3),
    _one("minGRU_pytorch", "minGRU", _SEQUENCE, dim=32, expansion_factor=1.5),
    _one("egnn_pytorch", "EGNN", _points, dim=16),
    _one("torch_geometric.nn", "GCN", _graph(), 16, 32, 2, 5),
    _one("torch_geometric.nn", "GAT", _graph(), 16, 32, 2, 5),
    _one("torch_geometric.nn", "GIN", _graph(), 16, 32, 2, 5),
    _one("torch_geometric.nn", "GraphSAGE", _graph(), 16, 32, 2, 5),
    _one("torch_geometric.nn", "PNAConv", _graph(), 16, 32, ["mean", "max", "std"], ["identity"], torch.ones(8)),
    _one("pytorch_tabnet.tab_network", "TabNetNoEmbeddings", tensor(64, 10), 10, 3, n_d=8, n_a=8),
    _one("rtdl_revisiting_models", "ResNet", tensor(32, 10), d_in=10, d_out=3, n_blocks=2, d_block=32, d_hidden=None,
         d_hidden_multiplier=2.0, dropout1=0.1, dropout2=0.0),
    _one("rtdl_revisiting_models", "MLP", tensor(32, 10), d_in=10, d_out=3, n_blocks=2, d_block=32, dropout=0.1),
    _one("rtdl_num_embeddings", "PeriodicEmbeddings", tensor(32, 10), 10, 8, lite=False),
    _one("pytorch_tcn", "TCN", tensor(2, 8, 32), 8, [16, 16, 16]),
    Candidate("mambapy Mamba", "mambapy", _mamba, _SEQUENCE),
    _one("ncps.torch", "CfC", tensor(4, 12, 8), 8, 16), _one("ncps.torch", "LTC", tensor(4, 6, 8), 8, 16),
    _one("MEGABYTE_pytorch", "MEGABYTE", tokens(2, 16), num_tokens=IDS, dim=(32, 16), depth=(2, 1), max_seq_len=(4, 4),
         dim_head=8, heads=4, flash_attn=False),
    _layers("sru", "SRUCell", tensor(6, 4, 32), 1, input_size=32, hidden_size=32),
    _layers("snntorch", "Leaky", tensor(4, 16), 1, beta=0.9),
    _one("zuko.nn", "MLP", tensor(32, 8), 8, 3, hidden_features=(32, 32)),
    )  # fmt: skip
CANDIDATES = tuple(c for c in _ALL if find_spec(c.source) is not None)
