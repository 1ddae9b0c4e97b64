"""`python -m minitransformer.native` compiles the engine now rather than on first use; without a C
compiler it says so and is no failure. With `--wasm` it makes engine.wasm again, for maintainers."""

import logging
import sys

from . import wasm
from .build import BuildError, library, log


def main(argv: list[str]) -> int:
    """1 where engine.wasm could not be made."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if argv == ["--wasm"]:
        try:
            wasm.write()
        except BuildError as error:
            log.error("error: %s", error)
            return 1
        return 0
    try:
        library()
    except BuildError as error:
        log.warning("the native engine is not built: %s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
