"""The baselines that learn online, a batch at a time, a file a method."""
