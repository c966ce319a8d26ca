"""Operations without a formula: the real operation is run on entries drawn from its inputs' statistics.

What inverts, factorises or sorts a matrix has no closed form in the moments of its entries, and what is seldom used
needs none. What the entries are made of is drawn (`capture.drawn`); each node says so in a caveat.
"""

from __future__ import annotations

from firstlight.rules.registry import measured

_SQUARE = "(x.view(-1, 8, 8) / 8 + 2 * torch.eye(8))"  # well-conditioned matrices

# linear algebra
for _name in ("inv", "det", "matrix_exp", "pinv", "eigvalsh", "svdvals"):
    measured(f"linalg_{_name}", example=f"torch.linalg.{_name}({_SQUARE})")
for _name in ("slogdet", "qr", "svd", "eigh", "lu", "lu_factor", "inv_ex"):
    measured(f"linalg_{_name}", example=f"torch.linalg.{_name}({_SQUARE})[0]")
measured("linalg_cond", example=f"torch.linalg.cond({_SQUARE})")
measured(
    "linalg_eig",
    "linalg_eigvals",
    "linalg_matrix_rank",
    "linalg_ldl_factor",
    "linalg_householder_product",
    "linalg_tensorinv",
)
measured("linalg_cholesky", "linalg_cholesky_ex", "cholesky", "cholesky_inverse")  # of independent entries none exists
measured("linalg_solve", "linalg_tensorsolve", example=f"torch.linalg.solve({_SQUARE}, x.view(-1, 8, 8))")
measured("linalg_solve_ex", example=f"torch.linalg.solve_ex({_SQUARE}, x.view(-1, 8, 8))[0]")
measured("linalg_solve_triangular", example=f"torch.linalg.solve_triangular({_SQUARE}, x.view(-1, 8, 8), upper=True)")
measured("cholesky_solve", example=f"torch.cholesky_solve(x.view(-1, 8, 8), {_SQUARE})")
measured("triangular_solve")
measured("linalg_lstsq", example=f"torch.linalg.lstsq({_SQUARE}, x.view(-1, 8, 8))[0]")
measured("linalg_lu_solve", "linalg_ldl_solve", "lu_solve", "lu_unpack", "linalg_vander", "orgqr", "ormqr", "lobpcg")
measured(
    "inverse", "pinverse", "matrix_exp", "det", "logdet", "slogdet", "svd", "qr", example=f"torch.inverse({_SQUARE})"
)
measured("svd_lowrank", "pca_lowrank", "nuclear_norm")

measured("cov", "corrcoef", example="torch.cov(x)")

# order
measured("median", "nanmedian", "kthvalue", "mode", example="x.median(-1)[0]")
measured("quantile", "nanquantile", example="x.quantile(0.3, dim=-1)")
measured("msort", example="x.msort()")
measured("cummax", "cummin", example="x.cummax(1)[0]")

# products and running ones
measured("prod", example="(0.2 * x[:, :4] + 1.0).prod(-1)")
measured("cumprod", example="(0.1 * x[:, :8] + 1.0).cumprod(1)")
measured("logcumsumexp", example="x.logcumsumexp(1)")
measured("gradient", example="torch.gradient(x, dim=1)[0]")

# indices
measured(
    "scatter_reduce",
    "index_reduce",
    example="x.new_zeros(16, 8).scatter_reduce(1, torch.arange(64).expand(16, 64) % 8, x, 'amax')",
)
measured("masked_scatter", "masked_select", "index_put", "put", "take", "diagonal_scatter", "segment_reduce")
measured("renorm", example="x.renorm(2, 0, 4.0)")
measured("combinations", "vander", "histogram", "histogramdd", "nonzero_static", "unravel_index")

# images and sound
measured("grid_sample", example="F.grid_sample(x.view(16, 4, 4, 4), x.view(16, 4, 8, 2) / 2, align_corners=False)")
measured("fractional_max_pool2d", "fractional_max_pool3d")
measured("stft", "istft")

# angles and rare special functions
measured("atan2", example="torch.atan2(x, x.roll(1, 1))")
measured("angle", example="torch.angle(x)")
measured("frexp", "nextafter", "gcd", "lcm", "igamma", "igammac", "mvlgamma", "special_multigammaln")
measured("special_gammainc", "special_gammaincc", "special_zeta", "special_airy_ai", "special_spherical_bessel_j0")
measured("special_modified_bessel_i0", "special_modified_bessel_i1", "special_modified_bessel_k0")
measured("special_modified_bessel_k1", "special_bessel_y0", "special_bessel_y1")

# losses that count, align or compare in ways of their own
measured("ctc_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss")
measured("triplet_margin_loss", example="F.triplet_margin_loss(x[:, :20], x[:, 20:40], x[:, 40:60], reduction='none')")
measured("triplet_margin_with_distance_loss", "linear_cross_entropy")
