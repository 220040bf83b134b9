"""What `train` needs: boosters, rolling-origin folds, and the bundle; it reads features and no tables."""
