"""Interpreters of the rule table: forward, adjoint, fluctuation. They know no operation."""
