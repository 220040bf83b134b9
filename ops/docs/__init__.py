"""The documentation: the generated reference pages, and the site."""
