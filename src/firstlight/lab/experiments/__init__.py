"""The experiments, one file each: configurations, grids, functions from (configuration, seeds) to rows."""
