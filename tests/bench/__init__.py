"""Speed, memory and synchronisations beside the obvious implementations: ``python -m tests.bench --help``."""
