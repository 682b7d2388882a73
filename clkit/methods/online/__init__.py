"""The baselines that learn online, one batch at a time; one file per method."""
