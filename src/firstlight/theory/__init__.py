"""The mathematics of signal propagation: NumPy and SciPy only, no torch, no state."""
