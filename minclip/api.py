"""The names that `import minclip` offers, from where they are defined."""

from minclip.backend import backends as backends
from minclip.errors import BackendError as BackendError
from minclip.errors import CheckpointError as CheckpointError
from minclip.errors import ConfigError as ConfigError
from minclip.errors import ImageError as ImageError
from minclip.errors import MinclipError as MinclipError
from minclip.errors import SearchError as SearchError
from minclip.errors import TokenizerError as TokenizerError
from minclip.model import Model as Model
from minclip.model import ModelOutput as ModelOutput
from minclip.model import load as load
from minclip.model import zero_shot as zero_shot
from minclip.ranking import Prediction as Prediction
