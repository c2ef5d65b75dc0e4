"""Parameters and payloads."""
