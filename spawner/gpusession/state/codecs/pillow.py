"""Pillow: a pen keeps drawing on the image that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_pictures as rebuild
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import Refused


class PillowCodec:
    library = "PIL.ImageDraw"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        from PIL.ImageDraw import ImageDraw

        yield ImageDraw, reduce_pen


codec = PillowCodec()


def reduce_pen(pen: Any, _pickler: StatePickler) -> Any:
    image = pen._image
    if pen.im is not image.im:
        raise Refused("It draws on an image that was replaced meanwhile.")
    own = ("_image", "im", "draw", "palette")
    state = {name: value for name, value in vars(pen).items() if name not in own}
    return rebuild.pen, (image, pen.mode), state, None, None, rebuild.fill_pen
