"""Every error that a user can act on, drawn as a tree.

    EpitaxyError
    ├── PluginError
    │   ├── UnknownComponentError
    │   ├── AmbiguousComponentError
    │   └── MissingDependencyError   (also an ImportError)
    ├── OptionError                  (also a ValueError)
    ├── ConfigError                  (also a ValueError)
    ├── DataError                    (also a ValueError)
    │   ├── EntryError               one entry is unusable
    │   ├── SourceError              a database does not answer, or answers nonsense
    │   ├── StoreError               files of a dataset are damaged or missing
    │   └── ConsistencyError         labels contradict each other
    ├── SplitError                   (also a ValueError)
    ├── CapabilityError              a model is asked for what it cannot do
    ├── ArtifactError                a saved model cannot be read
    ├── PublishError                 something cannot be published
    ├── TrainingError                training cannot go on
    └── StructureError               (also a ValueError) a calculator refuses a structure

A message says what was wrong, the value seen, what is allowed and what to do next.
"""


class EpitaxyError(Exception):
    """Base class: catch this to catch every error raised on purpose."""


class PluginError(EpitaxyError):
    """A plugin or one of its components cannot be used."""


class UnknownComponentError(PluginError):
    """No installed plugin provides the requested name."""


class AmbiguousComponentError(PluginError):
    """Two plugins provide the same name; the user must qualify it."""


class MissingDependencyError(PluginError, ImportError):
    """The component exists but a package that it needs is not installed."""


class OptionError(EpitaxyError, ValueError):
    """A component was given an option that it does not accept."""


class ConfigError(EpitaxyError, ValueError):
    """A configuration file has an unknown key, a wrong value or cannot be read."""


class DataError(EpitaxyError, ValueError):
    """Data cannot be used as they are."""


class EntryError(DataError):
    """One entry is unusable: the message names it and the reason."""


class SourceError(DataError):
    """A database cannot be reached, refuses the request, or answers nonsense."""


class StoreError(DataError):
    """Files of a stored dataset are missing, truncated, edited or of a newer format."""


class ConsistencyError(DataError):
    """Energies, forces and stresses of a set contradict each other."""


class SplitError(EpitaxyError, ValueError):
    """A split is impossible, overlaps, or does not belong to the dataset."""


class CapabilityError(EpitaxyError):
    """A model was asked for something that it declares it cannot do."""


class ArtifactError(EpitaxyError):
    """A saved model is damaged, incomplete or of a newer format."""


class PublishError(EpitaxyError):
    """Something cannot be published, or the place it was sent to cannot use it.

    Attributes:
        receipt: an `epitaxy.Receipt` of what was done before it went wrong; None for nothing.
    """

    def __init__(self, message: str, *, receipt: object = None):
        super().__init__(message)
        self.receipt = receipt


class TrainingError(EpitaxyError):
    """Training cannot start or go on."""


class StructureError(EpitaxyError, ValueError):
    """A calculator refuses a structure: the message names what is wrong with it."""
