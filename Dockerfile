# The pipeline with the packages of requirements.lock, which the tests run with:
#   docker build --tag sharpness .
#   docker run --gpus all --rm --volume "$PWD/results:/sharpness/results" \
#     --volume "$PWD/.snakemake:/sharpness/.snakemake" sharpness --cores all
# or, where Docker is not allowed,
#   apptainer build sharpness.sif docker-daemon://sharpness:latest
#   apptainer run --nv --bind "$PWD/results:/sharpness/results,$PWD/.snakemake:/sharpness/.snakemake" \
#     --pwd /sharpness sharpness.sif --cores all
# .snakemake holds what each result was made from: without it a changed setting would not be noticed.
FROM python:3.11.13-slim-bookworm

WORKDIR /sharpness
COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.lock
COPY Snakefile config.yaml environment.yml pyproject.toml CITATION.cff LICENSE ./
COPY workflow ./workflow
COPY src ./src
COPY slurm ./slurm

# For the caches of matplotlib and Snakemake, also of a user without a home.
ENV HOME=/tmp
ENTRYPOINT ["snakemake"]
CMD ["--cores", "all"]
