"""The commands of ``python -m kdcourse``, one module each."""
