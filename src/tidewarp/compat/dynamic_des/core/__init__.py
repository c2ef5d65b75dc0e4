"""Environment, registry, sampler, context."""
