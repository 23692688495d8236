"""What a design costs: each cost model is a `Quantity` with a physical unit."""

from hardware_models.black_box import BlackBox
from hardware_models.condition import Condition, ConditionalPrice
from hardware_models.datasheet import Achieved, Datasheet, Sourced, read_datasheet, shipped_datasheets, write_datasheet
from hardware_models.device import Device, read_device, shipped, write_device
from hardware_models.fit import FitError, fit_error, nonnegative_fit
from hardware_models.flops import Flops
from hardware_models.latency import Latency, LatencyTable, MeasuredNetwork, Validated, fit_table
from hardware_models.memory import ActivationMemory, CacheMemory, Memory, MemoryShare, WeightMemory
from hardware_models.names import quantity_to_dict
from hardware_models.params import DecoderParams, Params
from hardware_models.roofline import (
    DecodeEnergy,
    DecodeLatency,
    GenerationEnergy,
    GenerationLatency,
    PrefillEnergy,
    PrefillLatency,
)
from hardware_models.workload import FEATURES, Workload

__all__ = [
    "FEATURES",
    "Achieved",
    "ActivationMemory",
    "BlackBox",
    "CacheMemory",
    "Condition",
    "ConditionalPrice",
    "Datasheet",
    "DecodeEnergy",
    "DecodeLatency",
    "DecoderParams",
    "Device",
    "FitError",
    "Flops",
    "GenerationEnergy",
    "GenerationLatency",
    "Latency",
    "LatencyTable",
    "MeasuredNetwork",
    "Memory",
    "MemoryShare",
    "Params",
    "PrefillEnergy",
    "PrefillLatency",
    "Sourced",
    "Validated",
    "WeightMemory",
    "Workload",
    "fit_error",
    "fit_table",
    "nonnegative_fit",
    "quantity_to_dict",
    "read_datasheet",
    "read_device",
    "shipped",
    "shipped_datasheets",
    "write_datasheet",
    "write_device",
]
