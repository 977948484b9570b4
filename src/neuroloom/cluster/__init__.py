"""Workers on clusters: SLURM supplies them, daisy gives them blocks.

slurm    the few commands of SLURM that are used        supply   keeps as many workers as blocks need
job      what a worker's job asks for, for sbatch       ends     why jobs end
check    what a profile asks for and the cluster does not have
doctor   tries each partition with a short job (trial, probe, visit, answers, outcome, findings, diagnosis)
"""

from neuroloom.cluster.check import check_profile
from neuroloom.cluster.supply import WORKERS, slurm_supply

__all__ = ["WORKERS", "check_profile", "slurm_supply"]
