"""Text as bytes, a token each, for ``--bpe srupp_bytes``.

fairseq's own ``--bpe bytes`` fails in commands that use hydra's configuration, and folds spaces.
"""

from __future__ import annotations

from typing import Any

from fairseq.data.encoders import register_bpe
from fairseq.dataclass import FairseqDataclass

# visible ASCII as it is, other bytes as letters above: a dictionary's symbols have no white space
SYMBOLS = [chr(b) if 33 <= b <= 126 else chr(256 + b) for b in range(256)]
_BYTES = {symbol: byte for byte, symbol in enumerate(SYMBOLS)}


@register_bpe("srupp_bytes", dataclass=FairseqDataclass)
class ByteTokens:
    """Encode text as the names of its UTF-8 bytes, and decode them."""

    def __init__(self, *unused: Any) -> None:
        pass

    @staticmethod
    def encode(text: str) -> str:
        return " ".join(SYMBOLS[byte] for byte in text.encode())

    @staticmethod
    def decode(tokens: str) -> str:
        """Other tokens, such as <unk>, and broken UTF-8 become U+FFFD."""
        found = (_BYTES.get(token) for token in tokens.split())
        text = b"".join("\N{REPLACEMENT CHARACTER}".encode() if b is None else bytes([b])
                        for b in found)
        return text.decode(errors="replace")

    @staticmethod
    def is_beginning_of_word(token: str) -> bool:
        return True
