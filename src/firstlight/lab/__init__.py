"""The lab: data, models and trainers, experiments and figures that put theory under measurement."""
