"""``python -m invrestore`` is the command ``invrestore``."""

import sys

from invrestore.cli import main

sys.exit(main())
