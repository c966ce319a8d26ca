"""Names and defaults of the arguments of the canonical operations, in torch's order.

Arguments without a default are positional in a normalised node, all others are options, with the default
filled in: ``conv2d`` has ``args = (input, weight)`` and ``options = {"bias": None, "stride": 1, ...}``.
Operations that are not listed keep what the capture wrote.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from firstlight.graph.ir import Arg

_CONV = "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1"
_CONV_TRANSPOSE = "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1"
_MAX_POOL = "input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False"
_AVG_POOL = "input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None"
_ADAPTIVE = "input, output_size, return_indices=False"
_REDUCE = "input, dim=None, keepdim=False, dtype=None"
_VARIANCE = "input, dim=None, unbiased=True, keepdim=False, correction=None"
_DROPOUT = "input, p=0.5, training=True"
_RECURRENT = "input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first=False"
_BINARY = "input, other"

SIGNATURES: dict[str, str] = {
    # affine
    "linear": "input, weight, bias=None",
    "bilinear": "input1, input2, weight, bias=None",
    "conv1d": _CONV,
    "conv2d": _CONV,
    "conv3d": _CONV,
    "conv_transpose1d": _CONV_TRANSPOSE,
    "conv_transpose2d": _CONV_TRANSPOSE,
    "conv_transpose3d": _CONV_TRANSPOSE,
    "matmul": _BINARY,
    "addmm": "input, mat1, mat2, beta=1, alpha=1",
    "addmv": "input, mat, vec, beta=1, alpha=1",
    "addbmm": "input, batch1, batch2, beta=1, alpha=1",
    "baddbmm": "input, batch1, batch2, beta=1, alpha=1",
    "weight_norm": "v, g, dim=0",
    "embedding_bag": "input, weight, offsets=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, "
    "mode='mean', sparse=False, per_sample_weights=None, include_last_offset=False, padding_idx=None",
    "embedding": "input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, "
    "sparse=False",
    # arithmetic
    "add": "input, other, alpha=1",
    "sub": "input, other, alpha=1",
    "mul": _BINARY,
    "div": "input, other, rounding_mode=None",
    "pow": "input, exponent",
    "maximum": _BINARY,
    "minimum": _BINARY,
    "floor_divide": _BINARY,
    "remainder": _BINARY,
    "addcmul": "input, tensor1, tensor2, value=1",
    "addcdiv": "input, tensor1, tensor2, value=1",
    "lerp": "input, end, weight",
    "where": "condition, input, other",
    "masked_fill": "input, mask, value",
    "clamp": "input, min=None, max=None",
    "nan_to_num": "input, nan=0.0, posinf=None, neginf=None",
    # pointwise
    "leaky_relu": "input, negative_slope=0.01",
    "elu": "input, alpha=1.0",
    "celu": "input, alpha=1.0",
    "rrelu": "input, lower=0.125, upper=0.3333333333333333, training=False",
    "prelu": "input, weight",
    "hardtanh": "input, min_val=-1.0, max_val=1.0",
    "softplus": "input, beta=1, threshold=20",
    "gelu": "input, approximate='none'",
    "glu": "input, dim=-1",
    "threshold": "input, threshold, value",
    "softshrink": "input, lambd=0.5",
    "hardshrink": "input, lambd=0.5",
    "round": "input, decimals=0",
    # normalisation
    "softmax": "input, dim=None, dtype=None",
    "log_softmax": "input, dim=None, dtype=None",
    "softmin": "input, dim=None, dtype=None",
    "layer_norm": "input, normalized_shape, weight=None, bias=None, eps=1e-05",
    "rms_norm": "input, normalized_shape, weight=None, eps=None",
    "group_norm": "input, num_groups, weight=None, bias=None, eps=1e-05",
    "batch_norm": "input, running_mean=None, running_var=None, weight=None, bias=None, training=False, "
    "momentum=0.1, eps=1e-05",
    "instance_norm": "input, running_mean=None, running_var=None, weight=None, bias=None, "
    "use_input_stats=True, momentum=0.1, eps=1e-05",
    "local_response_norm": "input, size, alpha=0.0001, beta=0.75, k=1.0",
    "normalize": "input, p=2.0, dim=1, eps=1e-12",
    # attention and recurrence
    "scaled_dot_product_attention": "query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, "
    "scale=None, enable_gqa=False",
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn_tanh": _RECURRENT,
    "rnn_relu": _RECURRENT,
    # dropout
    "dropout": _DROPOUT,
    "dropout1d": _DROPOUT,
    "dropout2d": _DROPOUT,
    "dropout3d": _DROPOUT,
    "alpha_dropout": "input, p=0.5, training=False",
    "feature_alpha_dropout": "input, p=0.5, training=False",
    # pooling and resizing
    "max_pool1d": _MAX_POOL,
    "max_pool2d": _MAX_POOL,
    "max_pool3d": _MAX_POOL,
    "avg_pool1d": _AVG_POOL,
    "avg_pool2d": _AVG_POOL,
    "avg_pool3d": _AVG_POOL,
    "adaptive_avg_pool1d": _ADAPTIVE,
    "adaptive_avg_pool2d": _ADAPTIVE,
    "adaptive_avg_pool3d": _ADAPTIVE,
    "adaptive_max_pool1d": _ADAPTIVE,
    "adaptive_max_pool2d": _ADAPTIVE,
    "adaptive_max_pool3d": _ADAPTIVE,
    "interpolate": "input, size=None, scale_factor=None, mode='nearest', align_corners=None, "
    "recompute_scale_factor=None, antialias=False",
    "pixel_shuffle": "input, upscale_factor",
    "pixel_unshuffle": "input, downscale_factor",
    "pad": "input, pad, mode='constant', value=None",
    # reductions
    "sum": _REDUCE,
    "mean": _REDUCE,
    "prod": _REDUCE,
    "amax": "input, dim=(), keepdim=False",
    "amin": "input, dim=(), keepdim=False",
    "max": "input, dim=None, keepdim=False",
    "min": "input, dim=None, keepdim=False",
    "argmax": "input, dim=None, keepdim=False",
    "argmin": "input, dim=None, keepdim=False",
    "var": _VARIANCE,
    "std": _VARIANCE,
    "var_mean": _VARIANCE,
    "std_mean": _VARIANCE,
    "logsumexp": "input, dim, keepdim=False",
    "norm": "input, p='fro', dim=None, keepdim=False, dtype=None",
    "linalg_vector_norm": "input, ord=2, dim=None, keepdim=False, dtype=None",
    "cumsum": "input, dim, dtype=None",
    "cumprod": "input, dim, dtype=None",
    "topk": "input, k, dim=-1, largest=True, sorted=True",
    "sort": "input, dim=-1, descending=False, stable=False",
    # shapes
    "cat": "tensors, dim=0",
    "stack": "tensors, dim=0",
    "split": "input, split_size_or_sections, dim=0",
    "chunk": "input, chunks, dim=0",
    "unbind": "input, dim=0",
    "narrow": "input, dim, start, length",
    "select": "input, dim, index",
    "view": "input, shape",
    "reshape": "input, shape",
    "flatten": "input, start_dim=0, end_dim=-1",
    "unflatten": "input, dim, sizes",
    "permute": "input, dims",
    "transpose": "input, dim0, dim1",
    "t": "input",
    "movedim": "input, source, destination",
    "squeeze": "input, dim=None",
    "unsqueeze": "input, dim",
    "expand": "input, size",
    "repeat": "input, repeats",
    "repeat_interleave": "input, repeats, dim=None",
    "tile": "input, dims",
    "flip": "input, dims",
    "roll": "input, shifts, dims=None",
    "tril": "input, diagonal=0",
    "triu": "input, diagonal=0",
    "to": "input, dtype",
    # indexing
    "getitem": "input, index",
    "setitem": "input, index, value",
    "gather": "input, dim, index",
    "index_select": "input, dim, index",
    "index_add": "input, dim, index, source, alpha=1",
    "scatter": "input, dim, index, src",
    "scatter_add": "input, dim, index, src",
    "masked_scatter": "input, mask, source",
    "view_write": "base, part, index",
    # losses
    "mse_loss": "input, target, reduction='mean'",
    "l1_loss": "input, target, reduction='mean'",
    "cross_entropy": "input, target, weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.0",
    "binary_cross_entropy": "input, target, weight=None, size_average=None, reduce=None, reduction='mean'",
    "binary_cross_entropy_with_logits": "input, target, weight=None, size_average=None, reduce=None, "
    "reduction='mean', pos_weight=None",
    "huber_loss": "input, target, reduction='mean', delta=1.0, weight=None",
    "smooth_l1_loss": "input, target, size_average=None, reduce=None, reduction='mean', beta=1.0",
    "gaussian_nll_loss": "input, target, var, full=False, eps=1e-06, reduction='mean'",
    "nll_loss": "input, target, weight=None, ignore_index=-100, reduction='mean'",
}

# Other names that torch's spellings give to the same argument.
SYNONYMS: dict[str, str] = {
    "self": "input",
    "mat2": "other",
    "vec2": "other",
    "tensor": "other",
    "vec": "other",
    "axis": "dim",
    "sizes": "size",
    "indices": "index",
    "split_size": "split_size_or_sections",
    "keepdims": "keepdim",
    "x": "input",
    "exp": "exponent",
    "divisor": "other",
}


@lru_cache(maxsize=512)
def signature(op: str) -> tuple[tuple[str, ...], dict[str, Arg]] | None:
    """Names of the required arguments and defaults of the optional ones; None for an operation not listed.

    >>> signature("cat")
    (('tensors',), {'dim': 0})
    """
    text = SIGNATURES.get(op)
    if text is None:
        return None
    parsed = ast.parse(f"def f({text}): ...").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    names = [a.arg for a in parsed.args.args]
    defaults = [ast.literal_eval(d) for d in parsed.args.defaults]
    required = len(names) - len(defaults)
    return tuple(names[:required]), dict(zip(names[required:], defaults, strict=True))
