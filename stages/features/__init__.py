"""What `featurize` needs: features computed from tables, their files, and samples of the training rows."""
