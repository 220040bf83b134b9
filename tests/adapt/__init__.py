"""A second problem, put in place of the first one, and docs/adapt.md."""
