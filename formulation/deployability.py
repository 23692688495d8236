"""What runtimes and kernels ask of a design, as rules by name: a space keeps the designs that meet them.

A rule is about shapes and storage alone. Whether a file for a runtime can be written is the business of who writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from formulation.architecture import Architecture
from formulation.family import FAMILIES
from formulation.layer import layer_of
from formulation.menu import Menu
from formulation.problem import Budget, DesignProblem
from formulation.quantity import Quantity
from formulation.records.reading import chosen
from formulation.space import SearchSpace
from formulation.union import SpaceUnion, united


@dataclass(frozen=True)
class Deployability:
    """What a runtime or a kernel asks of a design.

    Attributes:
        name: as `DEPLOYABILITIES` lists it.
        reason: why, as the second half of a sentence.
        families: the only ones it runs; none named: any.
        alike: of these, those whose layers must all be alike.
        whole_heads: of these, those of one head size whose query heads fill the width, each with keys and values of its own.
        apart: whether no layers may share weights: all costs count them so.
        bytes_apart: whether it stores a layer each time that it is applied, so that sharing saves none of its bytes.
        one_head_size: whether all layers must have one head size.
        input_multiple: what every width that a map reads must be a multiple of.
        output_multiple: what every width that a map writes must be a multiple of.
    """

    name: str
    reason: str
    families: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    whole_heads: tuple[str, ...] = ()
    apart: bool = False
    bytes_apart: bool = False
    one_head_size: bool = False
    input_multiple: int | None = None
    output_multiple: int | None = None

    def faults(self, design: Architecture) -> tuple[str, ...]:
        """What a design does not meet, in sentences without their full stop; nothing where it can be deployed."""
        return tuple(self._faults(design))

    def _faults(self, design: Architecture) -> Iterator[str]:
        if self.families and design.family not in self.families:
            yield self._other_family(design.family)
        layered = [block for block in design.blocks if block.depth]
        if design.family in self.alike and len({replace(block, depth=1) for block in layered}) > 1:
            yield f"its layers differ; {self.name} runs the family {design.family} with all layers alike"
        if self.apart and any(block.depth > 1 and (design.shared if block.shared is None else block.shared) for block in layered):
            yield f"layers share their weights; {self.name} stores each layer that is applied"
        if self.families and any(block.gated not in (None, FAMILIES[design.family].gated) for block in layered):
            yield f"the gate of its layers is not that of the family {design.family}, as {self.name} asks"
        if design.family in self.whole_heads and any(
            (block.heads * block.head_size, block.kv_heads) != (block.width, block.heads) for block in layered
        ):
            yield (
                f"its heads share keys and values, or do not fill the width; the family {design.family}, which {self.name} runs, "
                "has neither"
            )
        if self.families and any(block.value_head_size != block.head_size for block in layered):
            yield f"its values have a head size of their own; {self.name} has one for queries, keys and values"
        if self.one_head_size and len(sizes := {block.head_size for block in layered}) > 1:
            yield f"its heads have the sizes {', '.join(map(str, sorted(sizes)))}; {self.name} has one for the whole network"
        read, written = {design.embedding_width, *design.widths}, {design.embedding_width, *design.widths}
        for block in layered:
            read |= {each.inputs for each in layer_of(block, design).maps}
            written |= {each.outputs for each in layer_of(block, design).maps}
        for multiple, widths, verb in ((self.input_multiple, read, "reads"), (self.output_multiple, written, "writes")):
            if multiple is not None and (wrong := sorted(width for width in widths if width % multiple)):
                yield f"a map {verb} the width {wrong[0]}, which is not a multiple of {multiple}, as {self.name} asks"

    def within(self, space: SearchSpace | SpaceUnion) -> SearchSpace | SpaceUnion:
        """The designs of a space that can be deployed, as a space that a file can hold like any other.

        Where layers must not share their weights, a design that does is replaced by the one that stores each of its layers: what
        the runtime makes of it, with the costs that it has there.

        Raises:
            ValueError: where no design can be.
        """
        fitted: list[SearchSpace] = []
        wrong: list[str] = []
        for part in space.parts:
            try:
                fitted += self._spaces(part)
            except ValueError as error:
                wrong.append(str(error))
        if not fitted:
            raise ValueError(f"no design of the space can be deployed with {self.name}: {wrong[0]}")
        return united(fitted)

    def of(self, problem: DesignProblem) -> DesignProblem:
        """A problem on the designs that can be deployed, with bytes as they are there; ValueError where no design can be."""
        budgets = (Budget(self.counted(b.quantity), b.upper, at_least=b.at_least) for b in problem.subject_to)
        return DesignProblem(
            self.within(problem.space),  # type: ignore[arg-type]  # a union stands in for a space
            None if problem.maximize is None else self.counted(problem.maximize),
            tuple(budgets),
            tuple(map(self.counted, problem.report)),
            tuple(map(self.counted, problem.minimize)),
        )

    def counted(self, quantity: Any) -> Any:
        """A quantity as it is where this is deployed: one that has the option `apart` counts layers each time they are applied.

        So do quantities inside of it, such as the memory of which a share is taken.
        """
        if not self.bytes_apart or not is_dataclass(quantity) or isinstance(quantity, type):
            return quantity
        own = {field.name: getattr(quantity, field.name) for field in fields(quantity) if field.init}
        changed = {name: self.counted(value) for name, value in own.items() if isinstance(value, Quantity)}
        changed = {name: value for name, value in changed.items() if value is not own[name]}
        if "apart" in own:
            changed["apart"] = True
        return replace(quantity, **changed) if changed else quantity

    def _spaces(self, part: SearchSpace) -> list[SearchSpace]:
        """The space of what can be deployed of one; several where head sizes must be equal; ValueError if there is none."""
        if self.families and part.family not in self.families:
            raise ValueError(self._other_family(part.family))
        for multiple in (self.input_multiple, self.output_multiple):
            if multiple is not None and part.embedding_width % multiple:
                raise ValueError(f"the embedding is {part.embedding_width} wide, which is not a multiple of {multiple}")
        alike = part.family in self.alike and not part.alike
        facts: dict[str, Any] = {"shared": part.shared and not self.apart}
        sizes = sorted({block.head_size for menu in part.menus for block in menu.items if block.depth})
        made, wrong = [], ""
        for own in [(size,) for size in sizes] if self.one_head_size else [tuple(sizes)]:
            found = [self._menu(menu, part.family, own) for menu in part.menus]
            menus = tuple(menu for menu in found if menu is not None)
            if len(menus) < len(found):
                wrong = f"block {found.index(None) + 1} has no item that meets {self._rules}: {part.menus[found.index(None)]}"
                continue
            try:
                fitted = replace(part, menus=menus, **facts)
                made += _all_alike(fitted) if alike else [fitted]
            except ValueError as error:
                wrong = str(error)
        if not made:
            raise ValueError(wrong)
        return made

    def _menu(self, menu: Menu, family: str, head_sizes: tuple[int, ...]) -> Menu | None:
        kept: dict[str, tuple[object, ...]] = {"head_size": head_sizes}
        if self.families:
            kept["gated"] = (None, FAMILIES[family].gated)
        if family in self.whole_heads:
            width = menu.items[0].width  # a family with this rule has one
            kept["heads"] = kept["kv_heads"] = tuple(width // size for size in head_sizes if width % size == 0)
        found = menu.within(kept, self.input_multiple, self.output_multiple)
        return _unshared(found) if found is not None and self.apart else found

    @property
    def _rules(self) -> str:
        multiples = ((self.input_multiple, "read"), (self.output_multiple, "written"))
        rules = [f"widths {verb} by its maps that are multiples of {number}" for number, verb in multiples if number is not None]
        return " and ".join(rules) or "its rules"

    def _other_family(self, family: str) -> str:
        return f"{self.name} does not run the family {family}; expected one of {', '.join(self.families)}"


def _all_alike(space: SearchSpace) -> list[SearchSpace]:
    """The designs whose layers are all alike, those that differ only in which block is left out once.

    Where it is not all one which block that is, a space for each shape of a layer; ValueError if there is none.
    """
    left_out_early = any(0 in menu.all_depths for menu in space.menus[:-1])
    if not left_out_early or (len(set(space.menus)) == 1 and space.step is None):
        return [replace(space, alike=True)]
    shapes = dict.fromkeys(replace(block, depth=1) for menu in space.menus for block in space.blocks_of(menu) if block.depth)
    names = ("width", "ffn_width", "heads", "kv_heads", "head_size", "bits")
    made, wrong = [], "no choice of the menus' items makes all layers alike"
    for shape in shapes:
        found = [menu.within({name: (getattr(shape, name),) for name in names}) for menu in space.menus]
        menus = tuple(menu for menu in found if menu is not None)
        if len(menus) == len(found):
            try:
                made.append(replace(space, menus=menus))
            except ValueError as error:  # steps that this shape does not satisfy
                wrong = str(error)
    if not made:
        raise ValueError(f"the space holds no design: {wrong}" if "holds no design" not in wrong else wrong)
    return made


def _unshared(menu: Menu) -> Menu:
    """A menu that leaves sharing to the space."""
    return replace(menu, shared=None, also=tuple(_unshared(each) for each in menu.also or ()))


DEPLOYABILITIES: dict[str, Deployability] = {
    each.name: each
    for each in (
        Deployability(
            "llama.cpp",
            "it has one residual width and one head size, runs layers that differ as Llama or Qwen2 blocks (deci), stores a layer "
            "each time that it is applied, and quantizes what a map reads in blocks of 32 (Q8_0, Q4_0)",
            families=("llama", "gpt2", "gpt_neox", "qwen2", "qwen3"),
            alike=("gpt2", "gpt_neox", "qwen3"),
            whole_heads=("gpt2", "gpt_neox"),
            bytes_apart=True,
            one_head_size=True,
            input_multiple=32,
        ),
        Deployability(
            "hf-llama",
            "LlamaForCausalLM of transformers has one shape for all of its layers and stores each of them",
            families=("llama",),
            alike=("llama",),
            apart=True,
        ),
        Deployability("gptq-128", "its groups are 128 weights along what a map reads", input_multiple=128),
        Deployability(
            "tensor-core-64",
            "NVIDIA's guide to matrix products asks for sides that are multiples of 64 numbers of 16 bits, 128 bytes, to keep the "
            "tensor cores of an A100 busy",
            input_multiple=64,
            output_multiple=64,
        ),
    )
}
"""Rules by name."""


def deployability(name: str) -> Deployability:
    """The rules of that name; ValueError listing the names."""
    return chosen("deployable", name, DEPLOYABILITIES)
