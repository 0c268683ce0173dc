"""A recipe for one component, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epitaxy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Spec:
    """Which component to build, and with which options.

    A spec is what configuration files hold, what strategies receive and what artifacts
    record: ``{"use": "painn", "width": 64}`` is ``Spec("painn", {"width": 64})``.
    """

    use: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: str | Mapping[str, Any] | Spec) -> Spec:
        """Read a spec from a name or from ``{"use": name, **options}``.

        Raises:
            ConfigError: the mapping has no key ``use``.
        """
        if isinstance(config, Spec):
            return config
        if isinstance(config, str):
            return cls(config)
        options = dict(config)
        if not isinstance(options.get("use"), str):
            raise ConfigError(
                f"a component needs the key 'use' with its name; got the keys "
                f"{', '.join(map(str, options)) or 'none'} (`epitaxy plugins` lists the names)"
            )
        return cls(options.pop("use"), options)

    def to_config(self) -> dict[str, Any]:
        """Return ``{"use": name, **options}``, ready for JSON or YAML."""
        return {"use": self.use, **self.options}

    def replace(self, **options: Any) -> Spec:
        """Return a copy with some options changed or added."""
        return Spec(self.use, {**self.options, **options})
