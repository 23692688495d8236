"""All that is public of formulation, hardware_models and solvers, by one name: `from merino import DesignProblem, Flops, solve`.

The network is `merino_net`, which needs PyTorch as soon as it is used.
"""

from merino_packages import refuse_namesakes

refuse_namesakes()

import formulation  # noqa: E402
import hardware_models  # noqa: E402
import solvers  # noqa: E402
from formulation import *  # noqa: E402, F403
from hardware_models import *  # noqa: E402, F403
from solvers import *  # noqa: E402, F403

__all__: list[str] = []
__all__ += formulation.__all__
__all__ += hardware_models.__all__
__all__ += solvers.__all__
