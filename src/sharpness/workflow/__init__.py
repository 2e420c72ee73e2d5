"""What the rules of the workflow need: locks, dates, Slurm, and local jobs as forks."""
