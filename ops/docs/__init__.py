"""The documentation: generated reference pages, pictures, and the site."""
