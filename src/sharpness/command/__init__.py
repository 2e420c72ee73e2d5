"""The command ``sharpness``: new, plan, cost, run, show, report and publish, thin over Snakemake and its stages."""
