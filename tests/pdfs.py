"""PDFs for tests, written by hand: ordinary ones, and ones that nobody should have to read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence


def pdf(*pages: str, content: bytes | None = None, packed: bool = False) -> bytes:
    """A PDF with a page for each text (an empty one is a page without text).

    Args:
        content: what every page's stream holds instead.
        packed: the streams are compressed.
    """
    objects: list[bytes] = []
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(pages)))
    objects.append(b"<< /Type /Catalog /Pages 2 0 R >>")
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    for i, text in enumerate(pages):
        stream = content if content is not None else _shown(text)
        how = ""
        if packed:
            stream, how = zlib.compress(stream, 9), " /Filter /FlateDecode"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /Resources {font} /MediaBox [0 0 612 792] "
            f"/Contents {4 + 2 * i} 0 R >>".encode()
        )
        objects.append(
            f"<< /Length {len(stream)}{how} >>\nstream\n".encode() + stream + b"\nendstream"
        )
    return _file(objects)


def _shown(text: str) -> bytes:
    if not text:
        return b""
    lines = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)").split("\n")
    said = " ".join(f"({line}) Tj T*" for line in lines)
    return f"BT /F1 12 Tf 72 720 Td 14 TL {said} ET".encode("latin-1")


def _file(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{at:010} 00000 n \n".encode() for at in places)
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\n".encode()
    return bytes(out + f"startxref\n{start}\n%%EOF".encode())


def encrypted(data: bytes, password: str) -> bytes:
    """`data` behind a password."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()
