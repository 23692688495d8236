"""What a data sheet says of a device: peak rates, bandwidth, memory, energy; those that are shipped, with their sources."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from formulation.architecture import positive_number

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
"""Precision -> bytes of a weight or an activation."""


Figures = Mapping[str, float] | tuple[tuple[str, float], ...]
"""A figure for each precision, as a mapping or as its items."""


ENERGY_PER_FLOP_45_NM = {"float32": 2.3e-12, "float16": 0.75e-12, "int8": 0.115e-12}
"""J an operation: half a multiplication and an addition (3.7 + 0.9, 1.1 + 0.4, 0.2 + 0.03 pJ), at 45 nm and 0.9 V, without what
fetching an instruction takes. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014."""


ENERGY_PER_DRAM_BYTE = 1.95e-9 / 8
"""J a byte: the middle of 1.3 to 2.6 nJ for an access of 64 bits to DRAM. Horowitz, ISSCC 2014."""


@dataclass(frozen=True)
class Datasheet:
    """What is published of a device. A figure that nobody published is None, and what needs it refuses the device.

    Attributes:
        name: as `DATASHEETS` lists it.
        peak_flops: precision -> operations a second (FLOP/s), without sparsity.
        bandwidth: of the memory that holds the weights [bytes/s].
        source: where each figure comes from, and how it was derived.
        layer_overhead_s: time a layer application takes besides its matrix products, such as launching its kernels [s]; 0: the
            roofline alone. To estimate it, take the slope of measured latency over the depth of networks too narrow to fill the
            device, or kernels a layer times the time to launch one.
        ram_bytes: memory [bytes].
        energy_per_flop: precision -> energy an operation [J].
        energy_per_byte: energy a byte read or written [J].
        static_power_w: power drawn whatever is computed, such as that of the idle device [W].
        power_w: power that the device is rated for [W]: energies are computed from it where those above are not published.

    Mappings are kept as tuples of their items, so that a datasheet can be hashed.

    Raises:
        ValueError: for figures that are not finite numbers above 0 (the overhead: of at least 0) and for precisions other than
            those of `BYTES`.
    """

    name: str
    peak_flops: Figures
    bandwidth: float
    source: str
    layer_overhead_s: float = 0.0
    ram_bytes: float | None = None
    energy_per_flop: Figures | None = None
    energy_per_byte: float | None = None
    static_power_w: float | None = None
    power_w: float | None = None

    def __post_init__(self) -> None:
        for name in ("name", "source"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise ValueError(f"the datasheet's {name} is {getattr(self, name)!r}; expected a text")
        if self.layer_overhead_s != 0:
            positive_number("layer_overhead_s", self.layer_overhead_s)
        for name in ("bandwidth", "ram_bytes", "energy_per_byte", "static_power_w", "power_w"):
            if name == "bandwidth" or getattr(self, name) is not None:
                positive_number(name, getattr(self, name))
        for name in ("peak_flops", "energy_per_flop"):
            if name == "peak_flops" or getattr(self, name) is not None:
                object.__setattr__(self, name, _figures(name, getattr(self, name)))

    def figure(self, name: str, precision: str | None = None) -> float:
        """A figure by its field's name, at a precision where it has several; ValueError if it is not published."""
        value = getattr(self, name)
        if precision is None or value is None:
            if value is None:
                raise ValueError(
                    f"the datasheet of {self.name} states no {name}; give one with dataclasses.replace, and its source"
                )
            return value
        figures = dict(value)
        if precision not in figures:
            raise ValueError(f"{self.name} has no {name} in {precision!r}; its datasheet states it in {', '.join(figures)}")
        return figures[precision]


def _figures(name: str, figures: Figures) -> tuple[tuple[str, float], ...]:
    """The figures as items, checked."""
    if not isinstance(figures, Mapping | tuple) or not figures:
        raise ValueError(f'{name} is {figures!r}; expected a figure for each precision, such as {{"float32": 1e12}}')
    known = dict(figures)
    if unknown := set(known) - set(BYTES):
        raise ValueError(f"{name} has {sorted(unknown)}; expected precisions among {', '.join(BYTES)}")
    return tuple(
        (precision, positive_number(f"{name} in {precision}", known[precision])) for precision in BYTES if precision in known
    )


_GIB = 2**30


DATASHEETS: dict[str, Datasheet] = {
    sheet.name: sheet
    for sheet in (
        Datasheet(
            "jetson-nano",
            {"float32": 128 * 2 * 921.6e6, "float16": 128 * 4 * 921.6e6},
            25.6e9,
            "NVIDIA Jetson Nano System-on-Module Data Sheet (4 GB): Maxwell GPU of 128 cores, 472 GFLOP/s in float16, 25.6 GB/s; "
            "GPU at 921.6 MHz in its 10 W mode, 640 MHz in its 5 W mode (NVIDIA L4T Development Guide, power modes of the Nano). "
            "Peaks are cores × 2 × clock in float32, twice that in float16: the 236 and 472 GFLOP/s that are quoted. int8 is no "
            "faster and not listed. Power: its 10 W mode. Static power and energies: none found.",
            ram_bytes=4 * _GIB,
            power_w=10,
        ),
        Datasheet(
            "jetson-orin-nano-8gb",
            {"float32": 1024 * 2 * 625e6, "float16": 10e12, "int8": 20e12},
            68e9,
            "NVIDIA Jetson Orin Nano Series Data Sheet: Ampere GPU of 1024 cores and 32 tensor cores at 625 MHz, 8 GB of LPDDR5 on "
            "128 bits, 68 GB/s, 40 TOPS in int8 with sparsity and hence 20 without, modes of 7 and 15 W. float32 is cores × 2 × "
            "clock; float16 on tensor cores is taken to be half of int8, as in NVIDIA's Ampere architecture. "
            "Power: its 15 W mode. Static power and energies: none found.",
            ram_bytes=8 * _GIB,
            power_w=15,
        ),
        Datasheet(
            "raspberry-pi-4",
            {"float32": 4 * 8 * 1.5e9},
            12.8e9,
            "Raspberry Pi 4 Model B, 4 GB: four Cortex-A72 at 1.5 GHz, LPDDR4 at 3200 MT/s (The Official Raspberry Pi Beginner's "
            "Guide, appendix F); 8 operations a cycle and core (vfpbench measured 15.9 GFLOP/s a core at 2 GHz, wlog.flatlib.jp, "
            "October 2015). The bandwidth takes the memory bus to be 32 bits wide, which no source was found to confirm. No faster "
            "float16 or int8. Static power: 2.1 W idle, measured with the firmware of autumn 2019 (G. Halfacree, The MagPi 88). "
            "Energies: Horowitz, ISSCC 2014, at 45 nm, where this processor is made at 28 nm: orders of magnitude.",
            ram_bytes=4 * _GIB,
            energy_per_flop={"float32": ENERGY_PER_FLOP_45_NM["float32"]},
            energy_per_byte=ENERGY_PER_DRAM_BYTE,
            static_power_w=2.1,
        ),
        Datasheet(
            "titan-xp",
            {"float32": 3840 * 2 * 1582e6, "int8": 3840 * 8 * 1582e6},
            547.7e9,
            "NVIDIA TITAN Xp: 3840 cores, boost clock of 1582 MHz, 12 GB of GDDR5X, 547.7 GB/s, 250 W. float32 is cores × 2 × "
            "clock, the 12.1 TFLOP/s that are quoted; int8 is four times that (instruction DP4A), the ratio NVIDIA states for the "
            "TITAN X of the same chip (11 and 44). float16 is not listed: at compute capability 6.1 it is slower than float32. "
            "Static power and energies: none found.",
            ram_bytes=12 * _GIB,
            power_w=250,
        ),
        Datasheet(
            "xeon-platinum-8180",
            {"float32": 28 * 64 * 2.5e9},
            6 * 8 * 2666e6,
            "Intel Xeon Platinum 8180, one socket: 28 cores at 2.5 GHz, two AVX-512 FMA units a core, hence 64 operations a cycle "
            "and core, six channels of DDR4-2666 (Intel ARK). The clock is lower while AVX-512 runs on all cores, so this peak is "
            "an upper bound. Power: 205 W by design (Intel ARK), memory left out. How much memory there is depends "
            "on the server; static power and energies: none found.",
            power_w=205,
        ),
        Datasheet(
            "h100-sxm",
            {"float32": 66.9e12, "float16": 989.4e12, "bfloat16": 989.4e12, "int8": 1978.9e12},
            3.35e12,
            "NVIDIA H100 Tensor Core GPU datasheet, SXM: 80 GB, 3.35 TB/s, up to 700 W; 67 TFLOP/s in float32, no tensor cores; "
            "float16 and bfloat16 of 1,979 TFLOP/s and int8 of 3,958 TOP/s with sparsity, half of it without; further digits from "
            "NVIDIA's H100 architecture white paper. Static power and energies: none found.",
            ram_bytes=80e9,
            power_w=700,
        ),
    )
}
"""Devices by name; the figures are peaks, as their vendors state them."""


def datasheet(name: str) -> Datasheet:
    """The datasheet of that name; ValueError listing the names, the nearest first."""
    if name in DATASHEETS:
        return DATASHEETS[name]
    near = difflib.get_close_matches(str(name).lower(), DATASHEETS, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"there is no datasheet {name!r}; {meant}choose one of {', '.join(DATASHEETS)}")
