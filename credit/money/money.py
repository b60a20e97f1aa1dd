"""Money as people write it and as ledgers count it: major units as text, minor units as whole numbers.

::

    euro = Currency.of("EUR")
    euro.minor("12.34")  # 1234
    euro.format(1234)  # '12.34 EUR'
    Currency.of("JPY").minor("12.34")  # ValueError: amount '12.34' has 2 decimals: JPY has none …

No floating-point number is ever read or made. So 0.1 is exactly a tenth, and what is written can be read back to the unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .apportionment import require_whole
from .settlement import LARGEST

MOST_DECIMALS = 18
"""The largest exponent: an ether has 10^18 wei. With a larger one, 2^63 − 1 minor units would be less than one major unit."""

_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS = {code: exponent for exponent, codes in _BY_EXPONENT.items() for code in codes.split()}
"""Exponents of ISO 4217, where they are not 2."""

_CODE = re.compile(r"[A-Z0-9]{3,12}", re.ASCII)
_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_MOST_SHOWN = 40  # letters of a wrong amount


@dataclass(frozen=True)
class Currency:
    """A currency.

    Attributes:
        code: 3 to 12 capital letters and digits: a code of ISO 4217, or of any other unit that a cooperative pays in.
        exponent: Decimals of an amount, 0 to 18. A major unit has 10^exponent minor ones.

    Raises:
        ValueError: If the code or the exponent is not allowed.
    """

    code: str = "EUR"
    exponent: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.code, str) or not _CODE.fullmatch(self.code):
            raise ValueError(f"currency {_shown(self.code)}: write 3 to 12 capital letters or digits, such as EUR")
        if isinstance(self.exponent, bool) or not isinstance(self.exponent, int) or not 0 <= self.exponent <= MOST_DECIMALS:
            raise ValueError(
                f"exponent={_shown(self.exponent)} of {self.code}: must be a whole number of decimals from 0 to {MOST_DECIMALS}"
            )

    @classmethod
    def of(cls, code: str, exponent: int | None = None) -> Currency:
        """A currency by its code.

        Args:
            code: As above.
            exponent: Its decimals. ``None`` is those of ISO 4217, and 2 for a code that is not in it.

        Raises:
            ValueError: If the code or the exponent is not allowed.
        """
        return cls(code, (EXPONENTS.get(code, 2) if isinstance(code, str) else 2) if exponent is None else exponent)

    def minor(self, text: str) -> int:
        """An amount in major units, as minor ones: ``"12.34"`` euros are 1234 cents.

        Args:
            text: Digits, and after a point at most as many as the currency has decimals. No sign, no exponent, no spaces, and nothing
                between thousands.

        Raises:
            ValueError: If it is written otherwise, is finer than a minor unit, or is above 2^63 − 1 minor units.
            TypeError: If it is not text: a float is not exact, and an integer might be meant in either unit.
        """
        if not isinstance(text, str):
            raise TypeError(f"amount={text!r}: write it as text, such as {self._example!r}, not as {type(text).__name__}")
        match = _AMOUNT.fullmatch(text)
        if match is None:
            raise ValueError(
                f"amount {_shown(text)}: write digits with at most {self._decimals} behind a point, such as {self._example}"
                if self.exponent
                else f"amount {_shown(text)}: write digits alone, such as {self._example}"
            )
        whole, part = match[1].lstrip("0"), match[2] or ""
        if len(part) > self.exponent:
            came = f"{len(part)} decimal{'s' * (len(part) != 1)}"
            raise ValueError(f"amount {_shown(text)} has {came}: {self.code} has {self._decimals}, and nothing is rounded")
        # longer ones are not read: that would take long
        amount = int(whole + part.ljust(self.exponent, "0") or "0") if len(whole) <= len(str(LARGEST)) else LARGEST + 1
        if amount > LARGEST:
            raise ValueError(f"amount {_shown(text)}: no more than {self.format(LARGEST)} (2^63 − 1 minor units) can be recorded")
        return amount

    def plain(self, amount: int) -> str:
        """An amount in minor units as major ones, with all decimals and without the code; :meth:`minor` reads it back.

        Raises:
            ValueError: If it is negative.
            TypeError: If it is not an integer.
        """
        require_whole("amount", amount)
        if amount < 0:
            raise ValueError(f"amount={amount}: must not be negative")
        whole, part = divmod(int(amount), 10**self.exponent)
        return f"{whole}.{part:0{self.exponent}d}" if self.exponent else str(whole)

    def format(self, amount: int) -> str:
        """An amount in minor units as major ones with the code, such as ``'12.34 EUR'``. Raises as :meth:`plain` does."""
        return f"{self.plain(amount)} {self.code}"

    @property
    def _example(self) -> str:
        return self.plain(12 * 10**self.exponent + 34 % 10**self.exponent)

    @property
    def _decimals(self) -> str:
        return str(self.exponent) if self.exponent else "none"


def _shown(given: object) -> str:
    """What came, as text short enough for an error message."""
    text = f"a number of {given.bit_length()} bits" if isinstance(given, int) and given.bit_length() > 64 else repr(given)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
