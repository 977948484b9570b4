"""Workers on clusters: SLURM supplies them, daisy gives them blocks.

slurm    the few commands of SLURM that are used        supply   keeps as many workers as blocks need
job      what a worker's job asks for, for sbatch       ends     why jobs end
check    what a profile asks for and the cluster does not have        sacct    what jobs took, as SLURM measured it
"""

from neuroloom.cluster.check import check_profile
from neuroloom.cluster.supply import slurm_supply

__all__ = ["check_profile", "slurm_supply"]
