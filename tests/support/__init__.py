"""Fakes, servers and parsers that tests share."""
