"""The types with which stages/problem is declared: columns, rules, rows, parameters; it imports stages/base only."""
