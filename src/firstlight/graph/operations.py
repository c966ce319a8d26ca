"""What torch calls an operation, and what we call it: one name for all spellings of the same thing.

``torch.add``, ``x + y``, ``x.add(y)``, ``x.add_(y)`` and ``x += y`` are one operation, "add". The tables are
strings only, so that the floors below torch can read them. `capture.record` asks once per function.
"""

from __future__ import annotations

SPELLINGS: dict[str, str] = {
    # torch.sparse
    "_sparse_mm": "mm",
    "spmm": "mm",
    "smm": "mm",
    "dsmm": "mm",
    "hspmm": "mm",
    "_sparse_addmm": "addmm",
    "_sparse_sum": "sum",
    "_sparse_softmax": "softmax",
    "_sparse_log_softmax": "log_softmax",
    # arithmetic
    "subtract": "sub",
    "rsub": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "truediv": "div",
    "rtruediv": "div",
    "rdiv": "div",
    "floordiv": "floor_divide",
    "rfloordiv": "floor_divide",
    "radd": "add",
    "rmul": "mul",
    "rpow": "pow",
    "rmatmul": "matmul",
    "rmod": "remainder",
    "mod": "remainder",
    "linalg_matmul": "matmul",
    "negative": "neg",
    "absolute": "abs",
    "clip": "clamp",
    "float_power": "pow",
    "or": "bitwise_or",
    "ror": "bitwise_or",
    "and": "bitwise_and",
    "xor": "bitwise_xor",
    "rxor": "bitwise_xor",
    "invert": "bitwise_not",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "arctan2": "atan2",
    "arccosh": "acosh",
    "arcsinh": "asinh",
    "arctanh": "atanh",
    "_threshold": "threshold",
    # special functions
    "special_expit": "sigmoid",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_expm1": "expm1",
    "special_exp2": "exp2",
    "special_log1p": "log1p",
    "special_logit": "logit",
    "special_round": "round",
    "special_sinc": "sinc",
    "special_softmax": "softmax",
    "special_log_softmax": "log_softmax",
    "special_logsumexp": "logsumexp",
    "special_psi": "digamma",
    "special_digamma": "digamma",
    "special_gammaln": "lgamma",
    "special_erfinv": "erfinv",
    "special_i0": "i0",
    "special_xlogy": "xlogy",
    "special_polygamma": "polygamma",
    # shapes
    "concat": "cat",
    "unsafe_chunk": "chunk",
    "unsafe_split": "split",
    "unsafe_split_with_sizes": "split",
    "fix": "trunc",
    "concatenate": "cat",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "mT": "transpose",
    "adjoint": "transpose",
    "T": "t",
    "H": "t",
    "mH": "transpose",
    "moveaxis": "movedim",
    "row_stack": "vstack",
    "split_with_sizes": "split",
    "tensor_split": "split",
    "view_as": "view",
    "reshape_as": "reshape",
    "_shape_as_tensor": "size",
    # element type and place
    "type": "to",
    "type_as": "to",
    "float": "to",
    "double": "to",
    "half": "to",
    "bfloat16": "to",
    "long": "to",
    "int": "to",
    "short": "to",
    "bool": "to",
    "byte": "to",
    "char": "to",
    "cfloat": "to",
    "cpu": "to",
    "cuda": "to",
    "deepcopy": "clone",
    "data": "detach",
    # layers
    "_weight_norm": "weight_norm",
    "_weight_norm_interface": "weight_norm",
    "max_pool1d_with_indices": "max_pool1d",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "adaptive_max_pool1d_with_indices": "adaptive_max_pool1d",
    "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d",
    "adaptive_max_pool3d_with_indices": "adaptive_max_pool3d",
    "fractional_max_pool2d_with_indices": "fractional_max_pool2d",
    "fractional_max_pool3d_with_indices": "fractional_max_pool3d",
    "rrelu_with_noise": "rrelu",
    "swish": "silu",
    "_scaled_dot_product_attention": "scaled_dot_product_attention",
    "_grouped_mm": "grouped_mm",
    "_log_softmax": "log_softmax",
    "_softmax": "softmax",
}

# Written with the operands the other way round: `canonical` gives the plain name, the capture swaps them.
REVERSED = frozenset(
    {"rsub", "__rsub__", "__rdiv__", "__rtruediv__", "__rfloordiv__", "__rpow__", "__rmatmul__", "__rmod__"}
)

# Properties that return a tensor; all others (shape, dtype, device, grad, ...) are no operations.
TENSOR_PROPERTIES = frozenset({"T", "H", "mT", "mH", "real", "imag", "data"})

# Draws: new signal, not constants, although they may read no tensor. The "_like" forms read only a shape.
# fmt: off
RANDOM = frozenset(
    {
        "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal",
        "bernoulli", "multinomial", "poisson", "exponential", "uniform", "log_normal", "cauchy",
        "geometric", "random", "binomial", "trunc_normal",
    }
)
# fmt: on

# These read the shape and type of their tensor argument and none of its entries.
# fmt: off
SHAPE_ONLY = frozenset(
    {
        "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty",
        "new_full", "new_tensor", "new_empty_strided", "zero", "fill",
    }
)
# fmt: on

# The same entries in another memory layout: whether anything is copied depends on strides, so no operation.
LAYOUT = frozenset({"contiguous"})

# Calls about a tensor, not on its entries.
# fmt: off
METADATA = frozenset(
    {
        "__len__", "__hash__", "__repr__", "__format__", "__str__", "__dir__", "__reduce_ex__",
        "__contains__", "size", "dim", "ndimension", "numel", "nelement", "element_size", "stride",
        "storage_offset", "storage", "untyped_storage", "data_ptr", "is_floating_point", "is_complex",
        "is_signed", "is_contiguous", "is_conj", "is_neg", "is_inference", "is_same_size",
        "is_set_to", "is_tensor", "is_pinned", "is_shared", "get_device", "has_names", "layout",
        "register_hook", "register_post_accumulate_grad_hook", "retain_grad", "requires_grad_",
        "backward", "result_type", "can_cast", "promote_types", "_is_view", "is_coalesced",
        "share_memory_", "pin_memory", "record_stream", "_assert", "_assert_async", "__dlpack__",
        "__dlpack_device__", "is_distributed", "_has_compatible_shallow_copy_type", "sym_size",
        "sym_numel",
    }
)
# fmt: on


def canonical(name: str) -> str:
    """Return the one name of the operation that torch spells `name`.

    Args:
        name: ``__name__`` of the function, method or property: "add_", "__iadd__", "special_expit", "relu".

    Returns:
        "add", "add", "sigmoid", "relu". A name that no table knows stays as it is, without the underscores
        that mark the in-place form.

    >>> canonical("__iadd__"), canonical("relu_"), canonical("__rsub__"), canonical("__getitem__")
    ('add', 'relu', 'sub', 'getitem')
    """
    if name in SPELLINGS:
        return SPELLINGS[name]
    plain = name.partition(".")[0]  # an overload of torch.ops: "mul.default"
    if plain.startswith("__") and plain.endswith("__"):
        plain = plain[2:-2]
        if plain[:1] == "i" and plain[1:] in _IN_PLACE_OPERATORS:
            plain = plain[1:]
        if plain == "rand":  # `__rand__` is the reversed `&`, not a draw
            return "bitwise_and"
    elif plain.endswith("_"):
        plain = plain[:-1]
    return SPELLINGS.get(plain, plain)


_IN_PLACE_OPERATORS = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "truediv",
        "floordiv",
        "pow",
        "mod",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    }
)
