"""hadas: joint search of backbones, early exits and clock settings for edge devices."""

__version__ = "0.1.0"
