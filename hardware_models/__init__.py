"""What a design costs: each cost model is a `Quantity` with a physical unit."""

from hardware_models.flops import Flops
from hardware_models.params import Params

__all__ = ["Flops", "Params"]
