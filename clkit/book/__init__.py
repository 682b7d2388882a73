"""What notebooks import: show, compare, explore and exercises."""
