"""One TOML table, read key by key: every wrong or unknown key is one line that names file and key."""

from typing import Any

from storage_model.errors import UserError


class ConfigTable:
    """One TOML table that is read key by key; what is left over at the end is an error."""

    def __init__(self, source: str, path: str, values: Any) -> None:
        if not isinstance(values, dict):
            raise UserError(f"{source}: [{path}] must be a table")
        self._source = source
        self._path = path
        self._values: dict[str, Any] = dict(values)

    def where(self, key: str) -> str:
        return f"{self._source}: {self._path + '.' if self._path else ''}{key}"

    def take(self, key: str, kind: type, default: Any = None, *, required: bool = False) -> Any:
        if key not in self._values:
            if required:
                raise UserError(f"{self.where(f'[{key}]' if kind is dict else key)} is missing")
            return default
        value = self._values.pop(key)
        if kind is list and isinstance(value, dict):  # TOML's own trap
            raise UserError(f"{self.where(f'[{key}]')} must be written with two brackets, [[{key}]]")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            words = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}
            raise UserError(f"{self.where(key)} = {value!r} must be {words[kind]}")
        return value

    def end(self) -> None:
        for key in self._values:
            raise UserError(f"{self.where(key)} is not a known key")
