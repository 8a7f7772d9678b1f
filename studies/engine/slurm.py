"""A batch script that runs a study on a Slurm cluster: a dask scheduler, its workers, and the study beside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --ntasks={workers}  # workers; each trains one run at a time
#SBATCH --cpus-per-task=4
{gpu}#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --requeue
# Change the lines above as your cluster asks, activate the environment of wtdiag here, and submit this file by sbatch.
# Submitted again, after any end of the job, the study goes on where it stopped.
set -euo pipefail
port=$((20000 + SLURM_JOB_ID % 20000))
scheduler=tcp://$(hostname):$port
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
dask scheduler --port "$port" --no-dashboard &
srun dask worker "$scheduler" --nworkers 1 --nthreads "$SLURM_CPUS_PER_TASK" --memory-limit 0 --no-dashboard \\
    {resources}--local-directory "${{TMPDIR:-/tmp}}" --death-timeout 300 &
{command} --scheduler "$scheduler"
"""


def slurm_script(name: str, command: Sequence[str], workers: int, *, gpu: bool) -> str:
    r"""Return a script for ``sbatch``.

    Parameters
    ----------
    name
        Name of the study, for the job's.
    command
        The command of the study, without ``--scheduler``.
    workers
        Number of workers.
    gpu
        Whether each worker has a GPU.

    Examples
    --------
    >>> script = slurm_script("small/depth-gap", ["wtdiag", "study", "small/depth-gap"], 8, gpu=True)
    >>> print(*script.splitlines()[1:5], script.splitlines()[-1], sep="\n")
    #SBATCH --job-name=small-depth-gap
    #SBATCH --ntasks=8  # workers; each trains one run at a time
    #SBATCH --cpus-per-task=4
    #SBATCH --gpus-per-task=1
    wtdiag study small/depth-gap --scheduler "$scheduler"
    """
    return _SCRIPT.format(
        name=re.sub(r"[^\w.-]+", "-", name),
        workers=workers,
        gpu="#SBATCH --gpus-per-task=1\n" if gpu else "",
        resources="--resources GPU=1 " if gpu else "",
        command=shlex.join(command),
    )
