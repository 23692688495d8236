"""Pyomo under `python -OO`, which takes away the docstrings that one of its modules makes others of, so that it cannot be imported.

Imported before Pyomo, this file has that module compiled with its docstrings; without -OO it changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

_MODULE = "pyomo.common.config"


class _WithDocstrings(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = compile(self.get_data(path), path, "exec", dont_inherit=True, optimize=1)
        return code


class _Finder:
    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        found: Any = PathFinder.find_spec(fullname, path, target) if fullname == _MODULE else None
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _WithDocstrings(found.loader.name, found.loader.path)
        return found


if sys.flags.optimize > 1:
    sys.meta_path.insert(0, _Finder)
