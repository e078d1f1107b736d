"""`python -m minclip_torch.training.miniatures`: make the bundled models from nothing."""

import sys

from minclip_torch.training.miniatures.recipes import main

sys.exit(main())
