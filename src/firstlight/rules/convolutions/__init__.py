"""Maps of windows: convolutions and pooling, the borders of images, weights that all positions share."""
