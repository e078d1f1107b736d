"""The names that `import minclip` offers, from where they are defined."""

from minclip.backend import backends as backends
from minclip.config import Config as Config
from minclip.config import MetaClip2TextConfig as MetaClip2TextConfig
from minclip.config import RobertaConfig as RobertaConfig
from minclip.config import TextConfig as TextConfig
from minclip.config import VisionConfig as VisionConfig
from minclip.errors import BackendError as BackendError
from minclip.errors import CheckpointError as CheckpointError
from minclip.errors import ConfigError as ConfigError
from minclip.errors import ImageError as ImageError
from minclip.errors import MinclipError as MinclipError
from minclip.errors import TokenizerError as TokenizerError
from minclip.loading import load as load
from minclip.loading import zero_shot as zero_shot
from minclip.model import Model as Model
from minclip.outputs import ClassifierOutput as ClassifierOutput
from minclip.outputs import ModelOutput as ModelOutput
from minclip.outputs import TowerOutput as TowerOutput
from minclip.ranking import Prediction as Prediction
