"""Our losses beside those of torchdistill, TextBrewer and TRL, on the same tensors."""
