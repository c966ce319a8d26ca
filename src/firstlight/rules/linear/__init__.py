"""Linear maps: contractions with weights, fixed maps along axes, Fourier transforms."""
