#!/usr/bin/env bash
# Run a study on this machine with all cores, also after a run that was killed; then show what it found.
#   workflow/run.sh CONFIG [TARGET...]
set -euo pipefail
config=$1
shift
study=$(PYTHONPATH=src python -m sharpness.study.file "$config")
results=results/$study

# One run at a time in this folder: a second waits for the first.
mkdir -p .snakemake
exec 9>.snakemake/run.lock
flock --nonblock 9 || { echo "Waiting for another run in this folder to end."; flock 9; }
# A run that was killed leaves Snakemake's own lock behind: one that lives keeps it. The jobs of the former may still be at
# work: they write the same bits.
if [ -n "$(ls -A .snakemake/locks 2>/dev/null)" ]; then
	snakemake --unlock --configfile "$config" --quiet all || true # what is in the way, the run says
fi

begin=$SECONDS
# The rate limit is never reached; by its time span Snakemake looks for new jobs, at every second a tenth of a core.
snakemake --cores all --scheduler greedy --max-jobs-per-timespan 1000/5s --rerun-incomplete --show-failed-logs \
	--quiet rules host --configfile "$config" -- "$@"
[ $# -eq 0 ] || exit 0

PYTHONPATH=src python -m sharpness.stages.summary --config "$config" --results "$results"
echo "Took $((SECONDS - begin)) s in all."
