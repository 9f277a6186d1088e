"""``python -m trio_lua`` is ``trio-lua``."""

import sys

from trio_lua.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
