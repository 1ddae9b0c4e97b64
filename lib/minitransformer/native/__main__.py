"""`python -m minitransformer.native` compiles the engine now rather than on first use; without a C
compiler it says so and is no failure. With `--wasm` it makes engine.wasm again, for maintainers."""

import logging
import sys

from . import wasm
from .build import BuildError, library, log

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if sys.argv[1:] == ["--wasm"]:
        try:
            wasm.write()
        except BuildError as error:
            sys.exit(f"error: {error}")
    else:
        try:
            library()
        except BuildError as error:
            log.warning("the native engine is not built: %s", error)
