"""recipes/CREMA-D/train.py as a module: ``from recipe_train import VAVLBrain``."""

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).resolve().parents[1] / "recipes" / "CREMA-D" / "train.py"
_spec = importlib.util.spec_from_file_location("vavl_recipe_train", _PATH)
module = importlib.util.module_from_spec(_spec)
sys.modules["vavl_recipe_train"] = module
_spec.loader.exec_module(module)

VAVLBrain = module.VAVLBrain
