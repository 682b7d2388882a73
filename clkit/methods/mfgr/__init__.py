"""MFGR: memory-free generative replay, and what shares its stages."""
