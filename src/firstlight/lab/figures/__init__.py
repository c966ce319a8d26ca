"""The figures, one file per experiment: functions from a store to a matplotlib figure."""
