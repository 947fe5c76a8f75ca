"""fedsim: an event-driven simulator of federated LoRA fine-tuning on realistic device fleets."""
