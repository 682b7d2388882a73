"""SpaceNet: the method to read is spacenet.py; compact.py trains the same faster where it can."""
