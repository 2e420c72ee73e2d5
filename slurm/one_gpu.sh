#!/usr/bin/env bash
# A study on one GPU, several jobs at the same time: for small networks, on a cluster whose GPUs are not divided.
#   sbatch slurm/one_gpu.sh                                       from the project's root: the paper's study
#   sbatch slurm/one_gpu.sh --configfile workflow/studies/digits.yaml
# Stopped at its time limit it has lost nothing: submit it again, and it goes on.
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=2-00:00:00
set -euo pipefail
# One run at a time in this folder, as with `sharpness run`; what a killed predecessor left unfinished is made again.
mkdir -p .snakemake
exec 9>.snakemake/run.lock
flock --nonblock 9 || {
	echo "Another run in this folder has not ended." >&2
	exit 1
}
snakemake --unlock "$@"
# One core for each job.
snakemake --cores "${SLURM_CPUS_PER_TASK:-8}" --keep-going --retries 1 --rerun-incomplete --show-failed-logs "$@"
