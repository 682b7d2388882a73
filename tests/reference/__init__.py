"""Slow, obvious second implementations and small networks that several tests use as references."""
