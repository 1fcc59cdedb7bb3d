"""beartype as jaxtyping calls it in tests: an int will do for a float, as type checkers have it (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
