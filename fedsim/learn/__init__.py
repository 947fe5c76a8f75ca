"""Real training: torch, transformers, peft; no virtual time."""
