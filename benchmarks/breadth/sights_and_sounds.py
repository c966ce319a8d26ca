"""Architectures of transformers for images, video, sound, series and mixtures of them; random weights, no downloads."""

from __future__ import annotations

import torch

from benchmarks.breadth.candidate import Candidate, ids, named
from benchmarks.breadth.hugging_face import IMAGE, one

VIDEO = named(pixel_values=(2, 4, 3, 32, 32))
WAVE = named(input_values=(2, 1600))
_CONV = {"conv_dim": [32, 32], "conv_kernel": [10, 4], "conv_stride": [5, 4], "mask_time_prob": 0.0, "layerdrop": 0.0}
_SERIES = {"prediction_length": 6, "context_length": 12, "lags_sequence": [1, 2], "input_size": 1}
_PAST = named(
    past_values=(4, 14), past_time_features=(4, 14, 1), past_observed_mask=lambda: torch.ones(4, 14),
    future_values=(4, 6), future_time_features=(4, 6, 1),
)  # fmt: skip

CANDIDATES: tuple[Candidate, ...] = (
    *(
        one(kind, IMAGE)
        for kind in (
            "deit", "beit", "dinov2", "data2vec-vision", "vit_mae", "vit_msn", "ijepa", "siglip_vision_model",
            "clip_vision_model", "dinov3_vit", "mobilenet_v1", "mobilenet_v2", "dpt",
        )
    ),
    one("convnextv2", IMAGE, hidden_sizes=[16, 32], depths=[1, 2], num_stages=2, patch_size=2),
    one("swinv2", IMAGE, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4, patch_size=2),
    one("pvt", IMAGE, hidden_sizes=[16, 32], depths=[1, 1], num_attention_heads=[1, 2], num_encoder_blocks=2,
        patch_sizes=[4, 2], strides=[4, 2], sequence_reduction_ratios=[2, 1], mlp_ratios=[2, 2]),
    one("pvt_v2", IMAGE, hidden_sizes=[16, 32], depths=[1, 1], num_attention_heads=[1, 2], num_encoder_blocks=2,
        patch_sizes=[7, 3], strides=[4, 2], sr_ratios=[2, 1], mlp_ratios=[2, 2]),
    one("segformer", IMAGE, hidden_sizes=[16, 32], depths=[1, 1], num_attention_heads=[1, 2], num_encoder_blocks=2,
        patch_sizes=[7, 3], strides=[4, 2], sr_ratios=[2, 1], mlp_ratios=[2, 2]),
    one("mobilevit", IMAGE, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64], patch_size=2),
    one("efficientnet", IMAGE, hidden_dim=320, width_coefficient=0.25, depth_coefficient=0.4, hidden_size=0),
    one("regnet", IMAGE, embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], groups_width=8),
    one("levit", named(pixel_values=(4, 3, 64, 64)), image_size=64, hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 2, 2], depths=[1, 1, 1], key_dim=[8, 8, 8], patch_size=16),
    one("poolformer", IMAGE, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], patch_size=16),
    one("focalnet", IMAGE, embed_dim=16, depths=[1, 1], patch_size=4, focal_levels=[2, 2], focal_windows=[3, 3]),
    one("bit", IMAGE, embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], num_groups=8),
    one("swiftformer", IMAGE, embed_dims=[16, 24, 32, 48], depths=[1, 1, 2, 1]),
    one("yolos", IMAGE, image_size=[32, 32], num_detection_tokens=6),
    one("glpn", IMAGE, hidden_sizes=[16, 32], depths=[1, 1], num_attention_heads=[1, 2], num_encoder_blocks=2,
        patch_sizes=[7, 3], strides=[4, 2], sr_ratios=[2, 1], mlp_ratios=[2, 2], decoder_hidden_size=16),
    one("timesformer", VIDEO, num_frames=4),
    one("vivit", VIDEO, num_frames=4, tubelet_size=[2, 8, 8]),
    one("videomae", VIDEO, num_frames=4),
    *(
        one(kind, WAVE, **_CONV)
        for kind in ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "wav2vec2-conformer")
    ),
    one("sew", WAVE, **_CONV, squeeze_factor=2),
    one("data2vec-audio", WAVE, **_CONV, conv_pos_kernel_size=5),
    one("audio-spectrogram-transformer", named(input_values=(2, 40, 16)), max_length=40),
    one("whisper", named(input_features=(2, 16, 40), decoder_input_ids=ids(2, 6))),
    one("speech_to_text", named(input_features=(2, 40, 16), decoder_input_ids=ids(2, 6)), input_feat_per_channel=16,
        conv_channels=32),
    one("encodec", named(input_values=(2, 1, 640)), num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=32,
        upsampling_ratios=[4, 2], num_lstm_layers=1),
    one("dac", named(input_values=(2, 1, 640)), encoder_hidden_size=8, decoder_hidden_size=32, hidden_size=32,
        downsampling_ratios=[2, 4], upsampling_ratios=[4, 2], n_codebooks=2, codebook_size=16, codebook_dim=4),
    one("vilt", named(input_ids=ids(4, 12), pixel_values=(4, 3, 32, 32))),
    one("patchtst", named(past_values=(4, 32, 2)), context_length=32, patch_length=8, num_input_channels=2),
    one("patchtsmixer", named(past_values=(4, 32, 2)), context_length=32, patch_length=8, num_input_channels=2),
    one("time_series_transformer", _PAST, **_SERIES, num_time_features=1),
    one("autoformer", _PAST, **_SERIES, num_time_features=1),
    one("informer", _PAST, **_SERIES, num_time_features=1),
    one("decision_transformer", named(
        states=(2, 5, 4), actions=(2, 5, 3), returns_to_go=(2, 5, 1), timesteps=ids(2, 5, high=10)),
        state_dim=4, act_dim=3, max_ep_len=20),
    one("perceiver", named(inputs=(2, 20, 24)), d_model=24, num_latents=6, d_latents=32, num_self_attends_per_block=2,
        num_self_attention_heads=4, num_cross_attention_heads=4),
    one("imagegpt"),
)  # fmt: skip
