"""clkit: models and trainers for class-incremental learning without stored images.

Importing the package imports nothing else, so that reading a saved result never loads torch.
"""

__version__ = "0.1.0"
