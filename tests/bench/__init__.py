"""Speed, memory and synchronisations against obvious implementations: ``python -m tests.bench --help``."""
