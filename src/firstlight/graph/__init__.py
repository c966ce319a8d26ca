"""Frozen records that everything above passes around: the graph, the measurement, findings and reports."""
