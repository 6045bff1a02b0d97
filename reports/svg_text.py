"""What is done to a drawing's SVG for the page: its twin for dark pages, and the same picture in fewer bytes.

Both are about the text that matplotlib writes.
"""

from __future__ import annotations

import re

from reports.style import DARK, LIGHT

_TWINS = {light.lower(): dark.lower() for light, dark in zip(LIGHT.every, DARK.every, strict=True)}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")

_COMMENT = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_PLACES = re.compile(r' (?:d|x|y)="[^"]*"')
_FINE = re.compile(r"(\.\d\d)\d+")
_CUT = r"\1"
_BETWEEN = re.compile(r"(?<=>)\s+(?=<)")
_MARK = r'<use xlink:href="#\w+" x="[-.\d]+" y="[-.\d]+"'
_ALIKE = re.compile(rf'({_MARK}) style="([^"]*)"/>((?:{_MARK} style="\2"/>)+)')
_WHOLE_OPACITY = re.compile(r"(?:^|[; ])opacity:")


def darkened(svg: str) -> str:
    """A drawing that was made for LIGHT as it is for DARK; colours that are no theme's (of a map of shades) stay.

    Exact as long as a drawing takes all else, places and widths and opacities, from elsewhere than its theme, and bakes
    none of the theme's colours into an image.
    """
    return _COLOUR.sub(lambda found: _TWINS.get(found.group(), found.group()), svg)


def slimmed(svg: str) -> str:
    """The same picture in about half of the bytes.

    Places are cut after the hundredth of a point, marks that look alike and follow each other say so once, and what
    nobody sees is left out.
    """
    bare = _COMMENT.sub("", svg)
    return _ALIKE.sub(_gathered, _BETWEEN.sub("", _PLACES.sub(_roughly, bare)))


def _roughly(place: re.Match[str]) -> str:
    return f" {' '.join(_FINE.sub(_CUT, place.group()).split())}"


def _gathered(found: re.Match[str]) -> str:
    first, look, others = found.groups()
    if _WHOLE_OPACITY.search(look):
        return found.group()  # of a group it would be that of all marks together
    rest = others.replace(f' style="{look}"', "")
    return f'<g style="{look}">{first}/>{rest}</g>'
