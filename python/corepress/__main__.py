"""``python -m corepress`` is the ``corepress`` command."""

import sys

from .cli.main import main

sys.exit(main())
