"""SpaceNet: spacenet.py holds the readable method; compact.py trains fully connected networks faster."""
