"""The theory of distillation: signals and losses, with torch alone."""
