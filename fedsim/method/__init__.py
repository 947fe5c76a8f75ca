"""The decisions: pure rules, no clock, no loop, no PEFT."""
