"""Models that ship: `factory`, a production line whose furnace follows real telemetry."""
