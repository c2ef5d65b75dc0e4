"""Where updates come from and where outputs go."""
