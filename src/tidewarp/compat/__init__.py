"""The published names of other systems, over what tidewarp has: translation of names, keywords and units, and nothing else."""
