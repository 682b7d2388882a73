"""DGM: masks, the growing generator, and the learner."""
