"""How the statistics of tensors move and meet: layouts, lengths of sites, pairs of positions, log-norm noise."""
