#!/usr/bin/env python
"""The console's command line: `manage.py help` lists the commands."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "calm_console.settings")
    from calm_console.commandline import execute

    sys.exit(execute(sys.argv))


if __name__ == "__main__":
    main()
