"""The model: bundle, booster, predictions; it knows neither HTTP nor the registry."""
