"""Device, random streams, files, interruption, import closure and the stages' entry point."""
