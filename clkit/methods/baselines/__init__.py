"""The baselines that learn a task in epochs, a file a method."""
