"""`python -m minitransformer.native` compiles the engine now rather than on first use; without a C
compiler it says so and is no failure."""

from .build import BuildError, library, log

if __name__ == "__main__":
    try:
        library()
    except BuildError as error:
        log.warning("the native engine is not built: %s", error)
