"""Run pip, and say that what it installed is temporary."""

import runpy
import sys


def main() -> None:
    """Run pip as ``python -m pip`` does."""
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if "install" in sys.argv[1:] and not end.code:
            print("\nds01: installed for this server only, and gone when it stops.")
            print("ds01: to keep it, add it to your image: ds01 image save")
        raise


if __name__ == "__main__":
    main()
