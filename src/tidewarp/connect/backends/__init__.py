"""One module per kind of source or sink; a broker's package may be imported here and nowhere else."""
