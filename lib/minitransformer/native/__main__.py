"""`python -m minitransformer.native` compiles the engine now rather than on first use; without a C
compiler it says so and is no failure, unless `--required`. With `--wasm` it makes engine.wasm
again, for maintainers."""

import argparse
import logging
import sys

from . import wasm
from .build import BuildError, library, log


def main(argv: list[str]) -> int:
    """1 where engine.wasm, or the engine that is required, could not be made."""
    parser = argparse.ArgumentParser(prog="python -m minitransformer.native", description=__doc__)
    parser.add_argument("--wasm", action="store_true", help="make engine.wasm again")
    parser.add_argument("--required", action="store_true", help="fail where it cannot be built")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.wasm:
        try:
            wasm.write()
        except BuildError as error:
            log.error("error: %s", error)
            return 1
        return 0
    try:
        library()
    except BuildError as error:
        log.warning("the C engine is not built: %s", error)
        return int(args.required)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
