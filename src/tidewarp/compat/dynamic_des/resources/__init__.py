"""Resources, containers and stores whose capacity may change."""
