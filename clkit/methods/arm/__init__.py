"""ARM (Ji et al. 2020): the paper in arm.py, the same numbers in less time in fast.py."""
