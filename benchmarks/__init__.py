"""One command prints one table per benchmark: ``python -m benchmarks [name ...]``."""
