"""A command line whose mistakes are told like every other one."""

from __future__ import annotations

import argparse
from typing import NoReturn

from repsim.errors import Mistake, RequestError


class RequestParser(argparse.ArgumentParser):
    """Says what is wrong as a RequestError, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises RequestError."""
        raise RequestError(Mistake(where="command line", key="", problem=message, allowed="see --help"))
