"""Checkpoints: where one lies, what is in its files, and how one is written.

`sources` says what a name stands for, `hub` downloads, `folder` tells which files are the config and the weights,
`safetensors` and `torch_file` read a weight file, `names` and `open_clip` translate, `reading` and `writing` are the
whole way there and back.
"""

from minclip.checkpoints.folder import SMALL_FILES as SMALL_FILES
from minclip.checkpoints.folder import has_weights as has_weights
from minclip.checkpoints.folder import weight_files as weight_files
from minclip.checkpoints.reading import read as read
from minclip.checkpoints.sources import bundled_names as bundled_names
from minclip.checkpoints.sources import locate as locate
from minclip.checkpoints.sources import state_of as state_of
from minclip.checkpoints.writing import save as save
