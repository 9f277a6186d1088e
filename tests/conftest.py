"""For all tests."""

import thoroughness

pytest_plugins = ["pytester"]
thoroughness.register()
