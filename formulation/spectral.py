"""Entropy of one random weight matrix: closed form, Monte-Carlo SVD, and the paper's look-up table over dimensions.

H(W) = E[ Σ_j log(1 + s_j²/ε²) ] in nat, s_j the singular values of an m×n matrix W with i.i.d. N(0, σ²) entries; only
ρ = (σ/ε)² matters (MeRino, section 3). What a transformer made of such matrices is worth is `formulation.entropy`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from formulation.records.files import replace_file

if TYPE_CHECKING:
    from scipy.interpolate import RegularGridInterpolator

Method = Literal["closed", "svd"]


def check_rho(rho: float) -> float:
    """`rho` where it is a number from 1e-100 to 1e100, whose squares and products are numbers too, else ValueError."""
    if isinstance(rho, bool) or not isinstance(rho, int | float | np.number) or not 1e-100 <= rho <= 1e100:
        raise ValueError(f"rho is {rho!r}; expected a positive number from 1e-100 to 1e100, (σ/ε)²")
    return float(rho)


def _check_dimensions(rows: Any, columns: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.asarray(rows, dtype=float), np.asarray(columns, dtype=float)
    for name, values in (("rows", rows), ("columns", columns)):
        valid = (values >= 1) & (values < math.inf)
        if not valid.all():
            raise ValueError(f"{name} holds {values[~valid][0]:g}; expected finite dimensions of at least 1")
    return rows, columns


def closed_form_entropy(rows: Any, columns: Any, rho: float) -> Any:
    """Entropy of rows × columns matrices in nat, in closed form; arrays broadcast.

    H is E log det(I + ρ·WWᵀ/σ²), the ergodic capacity of an i.i.d. Rayleigh channel. With m rows, n columns,
    a± = ρ(√m ± √n)², A = 1 + ρ(m + n), R = √((1+a₊)(1+a₋)) and F = (A − R)/2,

        H ≈ m·log(1 + ρn − F) + n·log(1 + ρm − F) − F/ρ  +  Δ,   Δ = ½ log R − ½ log((A + R)/2).

    The first three terms are Tulino & Verdú, "Random Matrix Theory and Wireless Communications" (2004), eq. 1.16, written
    symmetrically in m and n; Δ is the mean of Bai & Silverstein's (2004) central limit theorem for real entries.

    Evaluated so that no digits are lost to cancellation, however small or large ρ is: with m ≤ n and d = ρ(n − m),
    F = 2ρ²mn/(A + R), ρn − F = ρn(1 + d + R)/(A + R), ρm − F = ρm(1 + (2A − 1)/(R + d))/(A + R) and
    R − 1 = (2(A − 1) + d²)/(R + 1) have positive terms only.
    Raises ValueError for a dimension below 1 or ρ outside 1e-100 to 1e100.
    """
    rows, columns = _check_dimensions(rows, columns)
    rho = check_rho(rho)
    m, n = np.minimum(rows, columns), np.maximum(rows, columns)
    total, difference = rho * (m + n), rho * (n - m)
    root = np.sqrt(1 + rho * (np.sqrt(n) + np.sqrt(m)) ** 2) * np.sqrt(1 + rho * (np.sqrt(n) - np.sqrt(m)) ** 2)
    both = 1 + total + root
    large = rho * n * ((1 + difference + root) / both)
    small = rho * m * ((1 + (1 + 2 * total) / (root + difference)) / both)
    limit = m * np.log1p(large) + n * np.log1p(small) - 2 * m * (rho * n / both)
    beyond_one = 2 * total / (root + 1) + difference * (difference / (root + 1))
    finite_size = 0.5 * np.log1p(beyond_one) - 0.5 * np.log1p((total + beyond_one) / 2)
    value = limit + finite_size
    return float(value) if np.ndim(value) == 0 else value


@dataclass(frozen=True, slots=True)
class Estimate:
    """A Monte-Carlo mean with its standard error (both nat) over `draws` independent draws."""

    value: float
    standard_error: float
    draws: int


def monte_carlo_entropy(rows: int, columns: int, rho: float, draws: int = 16, seed: int = 0) -> Estimate:
    """Entropy of rows × columns matrices in nat by SVD of `draws` random matrices, as the paper computes it.

    Each draw is Σ_j log(1 + ρ·s_j²) for the singular values s_j of a matrix with N(0, 1) entries. The same seed gives the
    same estimate. Raises ValueError for fewer than 2 draws, which leave no standard error.
    """
    _check_dimensions(rows, columns)
    rho = check_rho(rho)
    if draws < 2:
        raise ValueError(f"draws is {draws}; expected at least 2, for a standard error")
    generator = np.random.default_rng([seed, rows, columns])
    values = np.empty(draws)
    for draw in range(draws):
        singular = np.linalg.svd(generator.standard_normal((rows, columns)), compute_uv=False)
        values[draw] = np.log1p(rho * singular**2).sum()
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(draws)), draws)


def spectral_entropy(
    rows: int, columns: int, rho: float = 0.01, method: Method = "closed", draws: int = 16, seed: int = 0
) -> float:
    """Entropy of one rows × columns random weight matrix in nat: `closed_form_entropy`, or `monte_carlo_entropy` for "svd"."""
    if method == "closed":
        return closed_form_entropy(rows, columns, rho)
    if method == "svd":
        return monte_carlo_entropy(rows, columns, rho, draws, seed).value
    raise ValueError(f'method is {method!r}; expected "closed" or "svd"')


_FORMAT = "merino-entropy-table"
_VERSION = 1
_CHECKSUM_LENGTH = 64


def _checksum(content: bytes) -> bytes:
    """SHA-256 as hexadecimal text. zip's own checksums leave its headers, and entries that are not read to their end, unchecked."""
    return hashlib.sha256(content).hexdigest().encode()


@dataclass(frozen=True, eq=False)
class EntropyTable:
    """The paper's look-up table: entropies on a grid of dimensions, linear interpolation (scipy) between the grid points.

    Attributes:
        rho: (σ/ε)² of every entry.
        grid: strictly increasing dimensions, the same for rows and columns.
        values: entropies in nat, array (grid, grid).
        method: "closed" or "svd": where the values come from.
        draws: matrices per entry for "svd", 0 for "closed".
        seed: of those draws.

    Build one with `EntropyTable.build`, keep it with `save`, get it back with `load`.
    """

    rho: float
    grid: tuple[int, ...]
    values: np.ndarray
    method: Method = "closed"
    draws: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_rho(self.rho)
        object.__setattr__(self, "grid", tuple(int(size) for size in self.grid))
        if len(self.grid) < 2 or any(b <= a for a, b in zip(self.grid, self.grid[1:], strict=False)) or self.grid[0] < 1:
            raise ValueError(f"grid is {self.grid}; expected at least two strictly increasing dimensions")
        if self.values.shape != (len(self.grid),) * 2 or not np.all(np.isfinite(self.values)):
            raise ValueError(f"values have shape {self.values.shape}; expected finite numbers, {len(self.grid)} × {len(self.grid)}")
        self.values.setflags(write=False)

    @classmethod
    def build(cls, rho: float, grid: Any, method: Method = "closed", draws: int = 16, seed: int = 0) -> EntropyTable:
        """The table over grid × grid by closed form or by Monte-Carlo SVD (each unordered pair of dimensions once)."""
        grid = tuple(int(size) for size in grid)
        if method == "closed":
            values = closed_form_entropy(np.array(grid)[:, None], np.array(grid)[None, :], rho)
            return cls(float(rho), grid, values, method)
        if method != "svd":
            raise ValueError(f'method is {method!r}; expected "closed" or "svd"')
        values = np.empty((len(grid), len(grid)))
        for i, rows in enumerate(grid):
            for j, columns in enumerate(grid[: i + 1]):
                values[i, j] = values[j, i] = monte_carlo_entropy(rows, columns, rho, draws, seed).value
        return cls(float(rho), grid, values, method, draws, seed)

    @cached_property
    def _interpolate(self) -> RegularGridInterpolator:
        from scipy.interpolate import RegularGridInterpolator

        return RegularGridInterpolator((self.grid, self.grid), self.values, method="linear")

    def __call__(self, rows: Any, columns: Any) -> Any:
        """Interpolated entropy in nat; arrays broadcast. ValueError for a dimension outside the grid."""
        points = np.stack(np.broadcast_arrays(*_check_dimensions(rows, columns)), axis=-1)
        if points.size and (points.min() < self.grid[0] or points.max() > self.grid[-1]):
            raise ValueError(
                f"the entropy table covers dimensions {self.grid[0]} to {self.grid[-1]}; "
                f"asked for {points.min():g} to {points.max():g}: build one over a wider grid"
            )
        values = self._interpolate(points)
        return values.item() if points.ndim == 1 else values

    def _parameters(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "rho": self.rho,
            "grid": self.grid,
            "method": self.method,
            "draws": self.draws,
            "seed": self.seed,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table and its parameters to `path` (npz, with a checksum of the file as its zip comment), atomically."""
        archive = io.BytesIO()
        np.savez(archive, parameters=np.array(json.dumps(self._parameters())), values=self.values)
        with zipfile.ZipFile(archive, "a") as zipped:
            zipped.comment = bytes(_CHECKSUM_LENGTH)
        body = archive.getvalue()[:-_CHECKSUM_LENGTH]
        with replace_file(Path(path)) as file:
            file.write(body + _checksum(body))

    @classmethod
    def load(cls, path: str | os.PathLike[str], **expected: Any) -> EntropyTable:
        """The table in `path`.

        expected: any of rho, grid, method, draws, seed; ValueError if the file's differ, where it is no such table or is
        damaged, with the path and what to do. FileNotFoundError where there is no file.
        """
        advice = "build it again with EntropyTable.build(...).save(...)"
        try:
            content = Path(path).read_bytes()
            if _checksum(content[:-_CHECKSUM_LENGTH]) != content[-_CHECKSUM_LENGTH:]:
                raise ValueError("its checksum does not match")
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                record = json.loads(str(archive["parameters"]))
                values = np.array(archive["values"], dtype=float)
            if record.pop("format") != _FORMAT or record.pop("version") != _VERSION:
                raise ValueError("another format or version")
            table = cls(values=values, **record)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not an entropy table or is damaged ({error}); {advice}") from None
        for name, value in expected.items():
            found = getattr(table, name)
            wanted = tuple(value) if name == "grid" else value
            if found != wanted:
                raise ValueError(f"{path} was built with {name} = {found}, but {name} = {wanted} is needed; {advice}")
        return table
