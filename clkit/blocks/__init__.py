"""Building blocks that papers cite: networks, losses, memories, penalties, generators."""
