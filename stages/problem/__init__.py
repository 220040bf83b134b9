"""The problem, as the pipeline needs it: raw tables, rules, repairs, target, slices."""
