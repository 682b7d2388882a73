"""What papers cite, each a block of its own: networks, losses, memories, penalties, generators."""
