"""Extensions of the workflow: locks, dates, Slurm, and local jobs as forks."""
