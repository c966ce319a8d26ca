"""Architectures of transformers: their own configurations, shrunk; random weights, no downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.breadth.candidate import IDS, Arguments, Candidate, ids, named

# What a configuration is shrunk to, where it has a field of that name.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "src_vocab_size", "tgt_vocab_size", "decoder_vocab_size", "entity_vocab_size"), IDS),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("decoder_hidden_size", "attention_hidden_size", "word_embed_proj_dim", "q_lora_rank"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "decoder_num_layers", "num_decoder_hidden_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "decoder_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "attention_head_size", "state_size", "projection_dim", "ssm_state_size"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "d_inner"), 64),
    **dict.fromkeys(("n_inner", "ffn_hidden_size", "hidden_dim", "dim_feedforward", "lru_width"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_top_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    "image_size": 32, "patch_size": 8, "num_mel_bins": 16, "max_source_positions": 20, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0, "sep_token_id": 3, "cls_token_id": 4,
    "mask_token_id": 5, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "use_mamba_kernels": False,
}  # fmt: skip
TEXT = named(input_ids=ids(4, 12))
PAIR = named(input_ids=ids(4, 12), decoder_input_ids=ids(4, 8))
IMAGE = named(pixel_values=(4, 3, 32, 32))
WAVE = named(input_values=(2, 2000))


def boxes() -> Tensor:
    """A rectangle (left, top, right, bottom) for each token."""
    corner, size = ids(4, 12, 2)(), ids(4, 12, 2)()
    return torch.cat([corner, corner + size], dim=-1)


def built(model_type: str, cls: str, own: dict[str, Any]) -> nn.Module:
    """The network of a shrunk configuration."""
    import transformers

    kind = transformers.CONFIG_MAPPING[model_type]
    has = kind()
    fixed = {k for k in SMALL if k in kind.attribute_map or isinstance(getattr(kind, k, None), property)}
    sizes = {k: v for k, v in SMALL.items() if hasattr(has, k) and k not in fixed}
    config = kind(**{k: v for k, v in {**sizes, **own}.items() if v is not None})
    if hasattr(config, "use_cache"):
        config.use_cache = False
    made = getattr(transformers, cls) if cls else transformers.AutoModel
    return made(config) if cls else made.from_config(config)


def one(
    model_type: str, inputs: Callable[[], Arguments] = TEXT, cls: str = "", name: str = "", **own: Any
) -> Candidate:
    return Candidate(name or model_type, "transformers", lambda: built(model_type, cls, own), inputs)


CANDIDATES: tuple[Candidate, ...] = (
    # encoders of text
    *(
        one(kind)
        for kind in (
            "distilbert", "roberta", "albert", "electra", "deberta", "deberta-v2", "mpnet", "fnet", "longformer",
            "big_bird", "nystromformer", "yoso", "rembert", "roformer", "squeezebert", "convbert", "megatron-bert",
            "luke", "tapas", "layoutlm", "modernbert", "mra", "esm", "ibert", "xlm", "markuplm", "nomic_bert",
        )
    ),
    one("funnel", cls="FunnelModel", num_hidden_layers=None, num_decoder_layers=1, block_sizes=[1, 1]),
    one("canine", num_hash_buckets=50, num_hash_functions=2),
    one("lilt", named(input_ids=ids(4, 12), bbox=boxes), hidden_size=48),
    one("bros", named(input_ids=ids(4, 12), bbox=(4, 12, 4)), hidden_size=64),
    one("mobilebert", TEXT),
    # decoders
    *(
        one(kind, cls=cls)
        for kind, cls in (
            ("opt", "OPTForCausalLM"), ("bloom", "BloomForCausalLM"), ("gpt_neox", "GPTNeoXForCausalLM"),
            ("phi", "PhiForCausalLM"), ("phi3", "Phi3ForCausalLM"), ("gemma", "GemmaForCausalLM"),
            ("gemma2", "Gemma2ForCausalLM"), ("gemma3_text", "Gemma3ForCausalLM"), ("qwen2", "Qwen2ForCausalLM"),
            ("qwen3", "Qwen3ForCausalLM"), ("qwen2_moe", "Qwen2MoeForCausalLM"), ("qwen3_moe", "Qwen3MoeForCausalLM"),
            ("mistral", "MistralForCausalLM"), ("olmo", "OlmoForCausalLM"), ("olmo2", "Olmo2ForCausalLM"),
            ("olmoe", "OlmoeForCausalLM"), ("stablelm", "StableLmForCausalLM"), ("rwkv", "RwkvForCausalLM"),
            ("starcoder2", "Starcoder2ForCausalLM"), ("cohere", "CohereForCausalLM"), ("granite", "GraniteForCausalLM"),
            ("granitemoe", "GraniteMoeForCausalLM"), ("ctrl", "CTRLLMHeadModel"), ("mpt", "MptForCausalLM"),
            ("openai-gpt", "OpenAIGPTLMHeadModel"), ("gpt_oss", "GptOssForCausalLM"), ("lfm2", "Lfm2ForCausalLM"),
            ("persimmon", "PersimmonForCausalLM"), ("nemotron", "NemotronForCausalLM"), ("xglm", "XGLMForCausalLM"),
            ("biogpt", "BioGptForCausalLM"), ("diffllama", "DiffLlamaForCausalLM"),
            ("recurrent_gemma", "RecurrentGemmaForCausalLM"), ("falcon_mamba", "FalconMambaForCausalLM"),
            ("falcon", "FalconForCausalLM"), ("minimax", "MiniMaxForCausalLM"),
            ("gpt_bigcode", "GPTBigCodeForCausalLM"),
        )
    ),
    one("jamba", cls="JambaForCausalLM"),
    one("gpt_neo", attention_types=[[["global", "local"], 1]]),
    one("gptj", rotary_dim=8),
    one("codegen", rotary_dim=8),
    one("deepseek_v2", num_key_value_heads=4),
    one("deepseek_v3", num_key_value_heads=4),
    one("mamba2", num_heads=4, head_dim=16, n_groups=1, chunk_size=8),
    one("bamba", mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=8, attn_layer_indices=[1]),
    one("xlstm"),
    one("qwen3_next", linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
        linear_num_value_heads=4),
    one("reformer", axial_pos_shape=[4, 3], axial_pos_embds_dim=[16, 16], attn_layers=["local", "lsh"],
         local_attn_chunk_length=4, lsh_attn_chunk_length=4, num_buckets=2, attention_head_size=8),
    # encoders and decoders
    *(
        one(kind, PAIR)
        for kind in (
            "bart", "mbart", "pegasus", "marian", "blenderbot", "m2m_100", "longt5", "umt5", "switch_transformers",
            "plbart",
        )
    ),
    one("led", PAIR, attention_window=4),
    one("prophetnet", PAIR, num_hidden_layers=None),
    one("xlnet", max_position_embeddings=None, d_head=8, d_model=32),
)  # fmt: skip
