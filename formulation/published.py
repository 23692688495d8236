"""The three designs that the paper publishes (its appendix), as architectures; its figures for them are in `studies`."""

from __future__ import annotations

from formulation.architecture import Architecture, Block

PUBLISHED: dict[str, Architecture] = {
    "MeRino-52M": Architecture((Block(512, 512, 2), Block(512, 512, 3), Block(640, 640, 2), Block(896, 896, 1))),
    "MeRino-61M": Architecture((Block(640, 640, 2), Block(768, 1152, 2), Block(896, 896, 2), Block(1024, 1024, 2))),
    "MeRino-64M": Architecture((Block(640, 960, 3), Block(896, 1344, 3), Block(1024, 1024, 2), Block(1024, 1024, 3))),
}
