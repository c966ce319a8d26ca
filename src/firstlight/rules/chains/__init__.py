"""Chains of pointwise functions over one Gaussian source, carried as values on its quadrature nodes."""
