"""What leaves: adapters in PEFT's own layout, the trained tensors with a small loader, or a whole model.

Every folder has tacit.json, which says what the weights belong to, and loads without Tacit.
"""

from dpcore.export.about import About, read_about
from dpcore.export.card import PrivacyClaim, write_card
from dpcore.export.folders import export_peft, export_trained, export_whole, load_peft, load_trained, load_whole

__all__ = [
    "About",
    "PrivacyClaim",
    "export_peft",
    "export_trained",
    "export_whole",
    "load_peft",
    "load_trained",
    "load_whole",
    "read_about",
    "write_card",
]
