"""What a spectrum costs here and with other libraries: ``python -m benchmarks.spectrum``."""
