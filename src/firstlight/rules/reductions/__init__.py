"""What one axis comes to: sums, means, norms and normalisations, extremes and ranks."""
