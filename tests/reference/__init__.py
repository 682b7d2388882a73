"""The obvious ways: slow second implementations and small networks that several tests compare with."""
