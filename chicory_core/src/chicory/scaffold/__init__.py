"""The package that ``chicory plugin new`` writes: its templates, and what its name may be."""
