"""What every stage stands on: device, random streams, files, interruption, and the import closure."""
