"""The baselines that learn each task in epochs, one file per method."""
