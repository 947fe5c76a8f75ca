"""``python -m fedsim``: the same as the console script ``fedsim``."""

from fedsim.cli import main

main()
