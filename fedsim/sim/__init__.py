"""Virtual time: SimPy stepped from asyncio; no tensors."""
