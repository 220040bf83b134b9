"""The model: bundle, booster, predictions; it imports neither HTTP nor the registry."""
