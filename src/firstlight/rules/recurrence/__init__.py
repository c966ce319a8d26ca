"""Recurrent layers and cells, mean field over time, and packed sequences."""
