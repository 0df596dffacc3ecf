"""Proof of what happened: signed checkpoints over the whole log, exports with proofs, and their verification."""
