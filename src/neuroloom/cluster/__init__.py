"""Jobs on clusters: SLURM supplies workers, to which daisy gives blocks, and runs trainings.

slurm    the few commands of SLURM that are used        supply     keeps as many workers as blocks need
job      what a job asks for, for sbatch                training   a training as one job, watched until it is done
check    what a profile asks for and is not there        ends       why jobs end
doctor   tries each partition with a short job (trial, probe, visit, answers, outcome, findings, diagnosis)
sacct    what jobs took, as SLURM measured it
"""

from neuroloom.cluster.check import check_profile
from neuroloom.cluster.supply import WORKERS, slurm_supply

__all__ = ["WORKERS", "check_profile", "slurm_supply"]
