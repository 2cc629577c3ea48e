"""Requests as bytes, and what RFC 9112 asks of a server that gets them.

Each case says what may be answered. Hidden in many is a second request (`HIDDEN`), which a server that
reads the first one as the RFC has it never sees: an answer to it is request smuggling.
Source: RFC 9112 (HTTP/1.1), and RFC 9110 (HTTP semantics) where it is named.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

BODY = b'{"model":"cosilo/x","messages":[{"role":"user","content":"hello"}]}'
KEY = b"Authorization: Bearer good\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"  # answered, it would be with 404
SECONDS = 10.0  # for an answer; none takes nearly as long


@dataclass(frozen=True)
class Framing:
    """Bytes on one connection, and what may come back.

    Attributes:
        asks: the section, and what it asks.
        sent: pieces; each but the first is sent once the one before was answered. b"" at the end
            stands for closing the connection.
        answers: for each answer the statuses that may be its own.
        after: "open": a further request on the connection is answered; "closed": the server closes
            it; "either".
    """

    name: str
    asks: str
    sent: tuple[bytes, ...]
    answers: tuple[tuple[int, ...], ...]
    after: str = "open"


def post(
    *lines: bytes,
    body: bytes = BODY,
    target: bytes = b"/v1/chat/completions",
    version: bytes = b"HTTP/1.1",
    host: bytes = b"Host: x\r\n",
    method: bytes = b"POST",
    key: bytes = KEY,
) -> bytes:
    """A request of those header lines (each with its own end) and that body."""
    start = method + b" " + target + b" " + version + b"\r\n"
    return start + host + key + b"".join(lines) + b"\r\n" + body


def length(body: bytes = BODY) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


CHUNKED = b"Transfer-Encoding: chunked\r\n"
OK = ((200,),)
BAD = ((400,),)
HALF = len(BODY) // 2


def accepted(name: str, asks: str, *sent: bytes, after: str = "open") -> Framing:
    return Framing(name, asks, sent, OK * len(sent), after)


def refused(name: str, asks: str, *sent: bytes) -> Framing:
    return Framing(name, asks, sent, BAD, "closed")


def either(name: str, asks: str, *sent: bytes) -> Framing:
    """The RFC leaves it to the server; what must not be is a second answer."""
    return Framing(name, asks, sent, ((200, 400),), "either")


CASES: tuple[Framing, ...] = (
    # Bodies of a stated length.
    accepted("length", "6.3: the body is as long as Content-Length says", post(length())),
    accepted("length with zeros in front", "RFC 9110 8.6: 1*DIGIT",
             post(b"Content-Length: 000%d\r\n" % len(BODY))),
    accepted("name of a field in capitals", "RFC 9110 5.1: names are case-insensitive",
             post(length().upper())),
    accepted("no space after the colon", "5: OWS may be nothing",
             post(length().replace(b": ", b":"))),
    accepted("spaces around the value", "5: OWS is no part of the value",
             post(length().replace(b": ", b": \t ").replace(b"\r\n", b" \t\r\n"))),
    refused("two lengths that differ", "6.3: invalid Content-Length, 400 and close",
            post(length(), b"Content-Length: 5\r\n")),
    refused("the shorter length first", "6.3: invalid Content-Length, 400 and close",
            post(b"Content-Length: 5\r\n", length(BODY + HIDDEN), body=BODY + HIDDEN)),
    either("the same length twice", "6.3: may be taken as one", post(length(), length())),
    either("the same length as a list", "6.3: may be taken as one",
           post(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)))),
    refused("a list of lengths", "6.3: invalid Content-Length", post(b"Content-Length: 5, 67\r\n")),
    *(
        refused(f"length {text.decode('latin-1')!r}", "RFC 9110 8.6: 1*DIGIT",
                post(b"Content-Length: " + text + b"\r\n", body=BODY + HIDDEN))
        for text in (b"+67", b"-1", b"0x43", b"67.0", b"6 7", b"67,", b"67;", b"", b"six", b"6_7",
                     b"18446744073709551683", b"\xb2")
    ),
    Framing("length beyond the limit", "RFC 9110 15.5.14: too large, may close",
            (post(b"Content-Length: 99999999\r\n", body=b""),), ((413,),), "closed"),
    Framing("neither length nor coding", "6.3: then the body is empty, and what follows is a request",
            (post(body=b"") + HIDDEN,), ((400, 411), (404,))),
    Framing("length 0", "6.3: an empty body, which is no JSON",
            (post(b"Content-Length: 0\r\n", body=b""),), ((400,),)),
    Framing("a body that nothing announced", "6.3: it is read as a request, which it is not",
            (post(body=BODY),), BAD, "closed"),
    # Bodies that an endpoint does not want.
    Framing("a request hidden in the body of a GET", "6: a body is read as one whatever the method",
            (post(length(HIDDEN), body=HIDDEN, method=b"GET", target=b"/v1/models"),), OK),
    Framing("a request hidden in a chunked body of a GET", "6: as above",
            (post(CHUNKED, body=chunks(HIDDEN), method=b"GET", target=b"/v1/models"),), OK),
    Framing("a request hidden in a body for nothing", "6: it is read although nobody wants it",
            (post(length(HIDDEN), body=HIDDEN, target=b"/nothing"),), ((404,),)),
    Framing("a request hidden in a body without a key", "6: as above",
            (post(length(HIDDEN), body=HIDDEN, key=b""),), ((401,),)),
    Framing("a request hidden in the body of a DELETE", "6: as above",
            (post(length(HIDDEN), body=HIDDEN, method=b"DELETE"),), ((405,),)),
    # Chunks.
    accepted("chunked", "7.1", post(CHUNKED, body=chunks(BODY))),
    accepted("many chunks", "7.1", post(CHUNKED, body=chunks(*(bytes([b]) for b in BODY)))),
    accepted("name of the coding in capitals", "7: names of codings are case-insensitive",
             post(CHUNKED.replace(b"chunked", b"CHUNKED"), body=chunks(BODY))),
    accepted("size in capitals and with zeros", "7.1: 1*HEXDIG",
             post(CHUNKED, body=b"000%X\r\n%b\r\n0000\r\n\r\n" % (len(BODY), BODY))),
    accepted("extension", "7.1.1: unknown extensions are ignored",
             post(CHUNKED, body=b"%x;a=b\r\n%b\r\n0;c\r\n\r\n" % (len(BODY), BODY))),
    accepted("extension in quotes", "7.1.1: as above",
             post(CHUNKED, body=b'%x;a="b;c"\r\n%b\r\n0\r\n\r\n' % (len(BODY), BODY))),
    either("extension with bad whitespace", "7.1.1: BWS should be read, though nobody may send it",
           post(CHUNKED, body=b"%x ; a = b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    accepted("trailer", "7.1.2: trailer fields may be dropped",
             post(CHUNKED, body=chunks(BODY, end=b"0\r\nX-Sum: 1\r\n\r\n"))),
    either("length in the trailer", "7.1.2, RFC 9110 6.5.1: framing is no matter of a trailer",
             post(CHUNKED, body=chunks(BODY, end=b"0\r\nContent-Length: 500\r\n\r\n"))),
    Framing("key in the trailer", "RFC 9110 6.5.1: trailers are not merged into the head",
            (post(CHUNKED, key=b"", body=chunks(BODY, end=b"0\r\n" + KEY + b"\r\n")),), ((401,),)),
    *(
        refused(f"chunk of size {size.decode('latin-1')!r}", "7.1: 1*HEXDIG",
                post(CHUNKED, body=size + b"\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN))
        for size in (b"xyz", b"-43", b"+43", b"0x43", b"4_3", b"", b" 43", b"43 4",
                     b"100000000000000043", b"\x0043", b"43\x00", b"43\xa0")
    ),
    refused("chunk longer than its size", "7.1: CRLF after the data",
            post(CHUNKED, body=b"5\r\n" + BODY + b"\r\n0\r\n\r\n")),
    refused("chunk's data ended by LF", "7.1: CRLF after the data",
            post(CHUNKED, body=b"%x\r\n%b\n0\r\n\r\n" % (len(BODY), BODY))),
    refused("chunk's size ended by LF", "7.1: CRLF after the size (2.2 speaks of the head only)",
            post(CHUNKED, body=b"%x\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    refused("chunk's size ended by CR", "7.1: CRLF after the size",
            post(CHUNKED, body=b"%x\r%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    refused("LF in an extension", "7.1.1: no LF in an extension",
            post(CHUNKED, body=b"%x;a\nb\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    refused("CR in an extension", "7.1.1: no CR in an extension",
            post(CHUNKED, body=b"%x;a\rb\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))),
    refused("a request in place of the trailer", "7.1.2: it is no field",
            post(CHUNKED, body=chunks(BODY, end=b"0\r\n" + HIDDEN))),
    # Both, or codings that frame nothing.
    *(
        Framing(name, "6.1, 6.3: may be refused or read by the coding; the connection is closed",
                (request,), ((200, 400),), "closed")
        for name, request in (
            ("length before coding", post(length(chunks(BODY)), CHUNKED, body=chunks(BODY))),
            ("coding before length", post(CHUNKED, length(chunks(BODY)), body=chunks(BODY))),
            ("length that ends inside the chunks",
             post(b"Content-Length: 6\r\n", CHUNKED, body=chunks(BODY) + HIDDEN)),
            ("length that hides a request behind the chunks",
             post(length(chunks(BODY) + HIDDEN), CHUNKED, body=chunks(BODY) + HIDDEN)),
            ("chunks that end before what the length says",
             post(length(b"0\r\n\r\n" + HIDDEN), CHUNKED, body=b"0\r\n\r\n" + HIDDEN)),
        )
    ),
    *(
        refused(f"coding {coding.decode('latin-1')!r}", "6.3: chunked is not the last coding, or 6.1: "
                "a coding that is not known (501, or 400 where its framing is in doubt)",
                post(b"Transfer-Encoding: " + coding + b"\r\n", body=chunks(BODY) + HIDDEN))
        for coding in (b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked",
                       b"chunked, identity", b"xchunked", b"chunked1", b"chunked;q=1", b'"chunked"',
                       b"chunke", b"\x0bchunked", b"chunked\x00", b"", b"cow")
    ),
    refused("chunked twice", "7: chunked is applied once",
            post(CHUNKED, CHUNKED, body=chunks(BODY))),
    refused("chunked, and another in a field of its own", "6.3: chunked is not the last coding",
            post(CHUNKED, b"Transfer-encoding: cow\r\n", body=chunks(BODY) + HIDDEN)),
    refused("an unknown coding before chunked", "6.1: not known",
            post(b"Transfer-Encoding: cow\r\n", CHUNKED, body=chunks(BODY) + HIDDEN)),
    accepted("a field that is only named alike", "5: another field",
             post(b"Transfer_Encoding: chunked\r\n", length())),
    Framing("chunked in HTTP/1.0", "6.1: the framing is faulty; the connection is closed",
            (post(CHUNKED, body=chunks(BODY), version=b"HTTP/1.0"),), ((200, 400),), "closed"),
    # Lines of the head.
    *(
        refused(f"{what} before the colon of {name.decode()}", "5.1: MUST be refused with 400",
                post(length(), name + space + b": chunked\r\n"))
        for what, space in (("space", b" "), ("tab", b"\t"))
        for name in (b"X-A", b"Transfer-Encoding")
    ),
    refused("space before the colon of the length", "5.1: MUST be refused with 400",
            post(length().replace(b":", b" :"))),
    either("a folded line", "5.2: refused, or read as a space", post(length(), b"X-A: b\r\n c\r\n")),
    either("a folded length", "5.2: as above", post(length().replace(b": ", b":\r\n "))),
    either("a folded coding", "5.2: as above",
           post(length(), b"X-A: b\r\n Transfer-Encoding: chunked\r\n")),
    either("space before the first field", "2.2: refused, or the line is skipped",
           post(length(), host=b" X-A: b\r\nHost: x\r\n")),
    refused("no colon", "5: a field has one", post(length(), b"X-A\r\n")),
    refused("no name", "5: a name is a token", post(length(), b": b\r\n")),
    *(
        refused(f"name {name.decode('latin-1')!r}", "RFC 9110 5.1: a name is a token",
                post(length(), name + b": b\r\n"))
        for name in (b"X(A)", b"X A", b"X\x00A", b"X\xe4", b"X@A", b'X"A"', b"X/A")
    ),
    *(
        Framing(f"value with {value!r}", "RFC 9110 5.5: refused, or read as a space",
                (post(length(), b"X-A: a" + value + b"b\r\n"),), ((200, 400),), "either")
        for value in (b"\x00", b"\r", b"\x01", b"\x7f")
    ),
    accepted("bytes beyond ASCII in a value", "RFC 9110 5.5: obs-text is opaque",
             post(length(), b"X-A: \xe4\xff\r\n")),
    either("lines ended by LF", "2.2: a single LF may be taken as the end of a line",
           post(length()).replace(b"\r\n", b"\n")),
    either("one line ended by LF", "2.2: as above", post(length(), b"X-A: b\n")),
    Framing("a coding behind an LF", "2.2: as above; it then stands beside a length",
            (post(length(chunks(BODY) + HIDDEN), b"X-A: b\nTransfer-Encoding: chunked\r\n",
                  body=chunks(BODY) + HIDDEN),), ((200, 400),), "closed"),
    Framing("a coding behind a CR", "2.2: a bare CR is invalid or a space",
            (post(length(), b"X-A: b\rTransfer-Encoding: chunked\r\n"),), ((200, 400),), "either"),
    accepted("an empty line first", "2.2: at least one is skipped", b"\r\n" + post(length())),
    # The request line.
    *(
        refused(f"request line {line.decode('latin-1')!r}", "3: method SP target SP HTTP/1.1",
                line + b"\r\nHost: x\r\n\r\n")
        for line in (b"GET", b"GET /healthz", b"GET  HTTP/1.1", b"GET /healthz HTTP/1.1 x",
                     b"GET /healthz http/1.1", b"GET /healthz HTTP/1.", b"GET /healthz HTTP/x.1",
                     b"GET /healthz HTTP1.1", b"GET /healthz HTTP/11", b"GET\x00/healthz HTTP/1.1",
                     b"GET /health\rz HTTP/1.1", b"GET healthz HTTP/1.1", b"(GET) /healthz HTTP/1.1")
    ),
    Framing("spaces in a target", "3.2: no whitespace in it; 400 or a redirect",
            (b"GET /heal thz HTTP/1.1\r\nHost: x\r\n\r\n",), BAD, "closed"),
    Framing("NUL in a target", "3.2: no octet of a URI",
            (b"GET /health\x00z HTTP/1.1\r\nHost: x\r\n\r\n",), BAD, "closed"),
    Framing("bytes beyond ASCII in a target", "3.2: no octets of a URI, which servers may read",
            (b"GET /\xe4 HTTP/1.1\r\nHost: x\r\n\r\n",), ((400, 404),), "either"),
    Framing("fragment in a target", "3.2: no part of a request target, which servers may read",
            (b"GET /healthz#a HTTP/1.1\r\nHost: x\r\n\r\n",), ((200, 400),), "either"),
    Framing("method that nobody knows", "RFC 9110 9.1: 501, or not allowed",
            (b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",), ((400, 405),), "either"),
    Framing("method in small letters", "RFC 9110 9.1: methods are case-sensitive",
            (b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",), ((400, 405),), "either"),
    Framing("HTTP/1.2", "2.3: read as the highest minor version known, or refused",
            (b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",), ((200, 400),), "either"),
    Framing("HTTP/2.0", "RFC 9110 15.6.6: 505, or 400",
            (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",), BAD, "closed"),
    Framing("HTTP/0.9 with a version", "RFC 9110 15.6.6: 505, or 400",
            (b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n",), BAD, "closed"),
    Framing("the preface of HTTP/2", "RFC 9113 3.4: a server that speaks HTTP/1.1 only refuses it",
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), BAD, "closed"),
    Framing("a TLS handshake", "no request at all", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",),
            BAD, "closed"),
    # Which host, which target.
    refused("no Host", "3.2: MUST be refused with 400", post(length(), host=b"")),
    refused("two Hosts", "3.2: MUST be refused with 400",
            post(length(), host=b"Host: x\r\nHost: y\r\n")),
    refused("the same Host twice", "3.2: MUST be refused with 400",
            post(length(), host=b"Host: x\r\nHost: x\r\n")),
    *(
        refused(f"Host {host.decode('latin-1')!r}", "3.2: an invalid value MUST be refused with 400",
                post(length(), host=b"Host: " + host + b"\r\n"))
        for host in (b"a b", b"a/b", b"user@a", b"a:80:80", b"a:b", b"[::1", b"a\\b", b"a?b",
                     b"a#b", b"<a>")
    ),
    *(
        accepted(f"Host {host.decode()!r}", "3.2: a host and a port",
                 post(length(), host=b"Host: " + host + b"\r\n"))
        for host in (b"x:8400", b"[::1]:8400", b"[fe80::1]", b"127.0.0.1", b"xn--bcher-kva.example:",
                     b"a_b", b"%41", b"a,b")
    ),
    Framing("an empty Host", "3.2: sent where the target has no authority",
            (post(length(), host=b"Host:\r\n"),), ((200, 400),), "either"),
    Framing("HTTP/1.0 without a Host", "3.2: only HTTP/1.1 needs one; 9.3: the connection is closed",
            (post(length(), host=b"", version=b"HTTP/1.0"),), OK, "closed"),
    Framing("HTTP/1.0 that would stay", "9.3: it may stay open", 
            (post(length(), b"Connection: keep-alive\r\n", version=b"HTTP/1.0"),), OK, "either"),
    accepted("absolute target", "3.2.2: a server MUST accept it",
             post(length(), target=b"http://x/v1/chat/completions")),
    accepted("absolute target of another host", "3.2.2: the Host field is ignored",
             post(length(), target=b"http://y:80/v1/chat/completions?a=b")),
    Framing("absolute target without a path", "RFC 9110 4.2.3: it is that of /",
            (b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",), ((404,),)),
    Framing("OPTIONS *", "3.2.4: the server as a whole", (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",),
            ((200, 204, 404, 405),)),
    Framing("GET *", "3.2.4: only of OPTIONS", (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",),
            ((400, 404),), "either"),
    Framing("CONNECT", "3.2.3: this is no proxy; nothing behind it is a request",
            (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n" + HIDDEN,), ((400, 404, 405),), "closed"),
    # Sizes.
    Framing("a target of 100 kB", "3: 414, or as a head that is too large",
            (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",), ((400, 414, 431),),
            "closed"),
    Framing("a field of 100 kB", "RFC 6585 5: 431, or 400",
            (post(length(), b"X-A: " + b"a" * 100_000 + b"\r\n"),), ((400, 431),), "closed"),
    Framing("20,000 fields", "RFC 6585 5: 431, or 400",
            (post(length(), b"X-A: b\r\n" * 20_000),), ((400, 431),), "closed"),
    # Connections.
    Framing("two requests at once", "9.3.2: answered in order",
            (post(length()) + HIDDEN,), ((200,), (404,))),
    Framing("fifty requests at once", "9.3.2: answered in order",
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 50,), OK * 50),
    Framing("a broken request behind a good one", "9.3.2: the good one is answered first",
            (post(length()) + b"GET\r\n\r\n",), OK, "closed"),
    Framing("broken chunks behind a good request", "9.3.2: as above",
            (post(length()) + post(CHUNKED, body=b"x\r\n") + HIDDEN,), OK, "closed"),
    Framing("broken chunks of a request that is refused already", "9.3.2: one answer for a request",
            (post(CHUNKED, key=b"", body=b"1\r\n{\r\n"), b"x\r\n" + HIDDEN), ((401,),), "closed"),
    Framing("a request behind Connection: close", "9.6: it is not answered",
            (post(length(), b"Connection: close\r\n") + HIDDEN,), OK, "closed"),
    Framing("Connection: close in a list", "9.6, RFC 9110 7.6.1: the options are a list",
            (post(length(), b"Connection: x-a, Close\r\n"),), OK, "closed"),
    Framing("HEAD", "6.3: the answer has no body", 
            (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n",), OK),
    Framing("Expect: 100-continue", "RFC 9110 10.1.1: told to go on before the body is sent",
            (post(length(), b"Expect: 100-continue\r\n", body=b""), BODY), ((100,), (200,))),
    Framing("Expect: 100-continue, and the body at once", "RFC 9110 10.1.1: 100 may be left out",
            (post(length(), b"Expect: 100-continue\r\n"),), OK),
    Framing("Expect: 100-continue without a key", "RFC 9110 10.1.1: refused before the body is sent",
            (post(length(), b"Expect: 100-continue\r\n", body=b"", key=b""),), ((401,),), "either"),
    Framing("Expect: 100-continue in HTTP/1.0", "RFC 9110 10.1.1: ignored",
            (post(length(), b"Expect: 100-continue\r\n", version=b"HTTP/1.0"),), OK, "closed"),
    Framing("Expect: something else", "RFC 9110 10.1.1: 417, or ignored",
            (post(length(), b"Expect: more\r\n"),), ((200, 417),), "either"),
    *(
        accepted(f"Upgrade: {to.decode()}, {kind}", "RFC 9110 7.8: may be ignored",
                 post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + to + b"\r\n"
                      b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", *more, method=method,
                      target=target, body=body), after="closed")
        for to in (b"h2c", b"websocket", b"TLS/1.0")
        for kind, method, target, body, more in (
            ("no body", b"GET", b"/v1/models", b"", ()),
            ("length", b"POST", b"/v1/chat/completions", BODY, (length(),)),
            ("chunks", b"POST", b"/v1/chat/completions", chunks(BODY), (CHUNKED,)),
        )
    ),
    accepted("Upgrade without Connection", "RFC 9110 7.8: ignored",
             post(length(), b"Upgrade: websocket\r\n")),
    Framing("a request behind an upgrade", "9.6: the connection is closed, so it is not answered",
            (post(b"Connection: upgrade\r\nUpgrade: h2c\r\n", length()) + HIDDEN,), OK, "closed"),
    # Clients that leave, or do not send what they said.
    Framing("a head that does not end", "9.5: the server may close", (post(length())[:40],), (),
            "closed"),
    Framing("a body that does not come", "RFC 9110 15.5.9: 408 and close",
            (post(length(), body=BODY[:HALF]),), ((408,),), "closed"),
    Framing("chunks that do not end", "RFC 9110 15.5.9: 408 and close",
            (post(CHUNKED, body=chunks(BODY, end=b"")),), ((408,),), "closed"),
    Framing("a body whose rest comes after the answer", "9.3: it is read as one all the same",
            (post(length(BODY + HIDDEN), key=b"", body=BODY), HIDDEN + HIDDEN), ((401,), (404,))),
    Framing("a body whose rest does not come after the answer", "9.5: the server may close",
            (post(length(), key=b"", body=BODY[:HALF]),), ((401,),), "closed"),
    Framing("a client that leaves within the head", "8: an incomplete request is not answered",
            (post(length())[:40], b""), (), "closed"),
    Framing("a client that leaves within the body", "8: as above",
            (post(length(), body=BODY[:HALF]), b""), (), "closed"),
    Framing("a client that leaves within a chunk", "8: as above",
            (post(CHUNKED, body=chunks(BODY)[:HALF]), b""), (), "closed"),
)  # fmt: skip


LAST = b"HEAD /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def tell(port: int, case: Framing) -> tuple[int, ...]:
    """The statuses of all that the server on `port` answers to a case, until the connection is closed.

    Where it need not be, it is by a last request, whose answer is 404.

    Raises:
        TimeoutError: the server neither answers nor closes.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[int] = []
    try:
        async with asyncio.timeout(SECONDS):
            *before, final = case.sent
            for piece in before:
                writer.write(piece)
                if final:  # else the client leaves, and waits for nothing
                    found.append(await _answer(reader, piece, case))
            if not final:
                await writer.drain()
                return ()
            writer.write(final)
            while case.after == "closed" or len(found) < len(case.answers):
                found.append(await _answer(reader, final, case))
            writer.write(LAST)
            found.append(await _answer(reader, LAST, case))
            while True:
                found.append(await _answer(reader, b"", case))
    except (asyncio.IncompleteReadError, ConnectionError):
        return tuple(found)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, asked: bytes, case: Framing) -> int:
    while True:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        status = int(start.split(b" ", 2)[1])
        if status != 100 or (100,) in case.answers:
            break
    fields = dict(line.lower().split(b": ", 1) for line in lines if line)
    if status >= 200 and status != 204 and not asked.startswith(b"HEAD "):
        await reader.readexactly(int(fields[b"content-length"]))
    return status


def wrong(case: Framing, found: tuple[int, ...]) -> str:
    """What of these statuses the case does not allow; nothing where all is well."""
    if any(status >= 500 for status in found):
        return f"5xx: {found}"
    stayed = len(found) == len(case.answers) + 1 and found[-1] == 404
    if case.after == "open" and not stayed:
        return f"the connection did not stay: {found}"
    answers = found[:-1] if stayed and case.after != "closed" else found
    if len(answers) != len(case.answers):
        return f"{len(answers)} answers: {found}"
    if any(status not in may for status, may in zip(answers, case.answers, strict=True)):
        return f"{found}"
    return ""
