"""Credentials: how many leave, and how many lines of ordinary code are taken for one.

    python benchmarks/pseudonyms/credentials.py --split test

25 made-up values of each of 48 formats, each in prose, in code, in a settings file, in a log and in
JSON, go through the pseudonym defence as one message each. Counted are values of which at least one
letter or digit left. Of 2,000 lines of Python's own standard library, those in which a SECRET is found
are false alarms. What is drawn has its issuer's form; prefixes and lengths are as documented.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import string
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from round_trip import Echo, boundary

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import DetectorName
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import Turn
from kept import Kept
from leaving import hidden

EACH = 25
LINES = 2_000
_ALNUM = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"
_URL = _ALNUM + "-_"
_B64 = _ALNUM + "+/"
Draw = Callable[[random.Random], str]


def _made(template: str) -> Draw:
    """`{a36}` is 36 letters and digits, `{h8}` hex, `{u8}` URL-safe base64, `{b8}` base64, `{A8}`
    capitals and 2 to 7, `{d8}` digits; the rest stands as it is."""
    capitals = string.ascii_uppercase + "234567"
    alphabets = dict(a=_ALNUM, h=_HEX, u=_URL, b=_B64, A=capitals, d=string.digits)

    def draw(rng: random.Random) -> str:
        out, at = "", 0
        while at < len(template):
            if template[at] == "{":
                end = template.index("}", at)
                alphabet = alphabets[template[at + 1]]
                drawn = [rng.choice(alphabet) for _ in range(int(template[at + 2 : end]))]
                if alphabet == _URL:  # begins and ends with a letter or digit, as nearly all do
                    drawn[0], drawn[-1] = rng.choice(_ALNUM), rng.choice(_ALNUM)
                out, at = out + "".join(drawn), end + 1
            else:
                out, at = out + template[at], at + 1
        return out

    return draw


def _jwt(rng: random.Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"sub": str(rng.randrange(10**9)), "iat": rng.randrange(10**9)}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{_made('{u43}')(rng)}"


def _password(rng: random.Random) -> str:
    word = rng.choice(["Sunny", "correct", "Falcon", "winter", "Tulip", "horse", "Maple"])
    return rng.choice(
        [
            f"{word}{rng.randrange(10, 9999)}{rng.choice('!#$%&*')}",
            f"{word}-{rng.choice(['staple', 'battery', 'river'])}-{rng.randrange(10, 99)}",
            "".join(rng.choice(_ALNUM + "!#%*+") for _ in range(rng.randrange(10, 18))) + "7q",
        ]
    )


FORMATS: dict[str, Draw] = {
    name: _made(template)
    for name, template in {
        "AWS access key id": "AKIA{A16}",
        "Google API": "AIza{u35}",
        "Google OAuth token": "ya29.a0{u120}",
        "Google client secret": "GOCSPX-{u28}",
        "Azure client secret": "{a3}8Q~{a34}",
        "DigitalOcean": "dop_v1_{h64}",
        "Databricks": "dapi{h32}",
        "Pulumi": "pul-{h40}",
        "Terraform Cloud": "{a14}.atlasv1.{u65}",
        "HashiCorp Vault": "hvs.{u90}",
        "Tailscale": "tskey-auth-{a14}-{a32}",
        "Supabase": "sbp_{h40}",
        "PlanetScale": "pscale_tkn_{u43}",
        "Netlify": "nfp_{a40}",
        "GitHub": "ghp_{a36}",
        "GitHub, fine-grained": "github_pat_{a22}_{a59}",
        "GitLab": "glpat-{u20}",
        "npm": "npm_{a36}",
        "PyPI": "pypi-AgEIcHlwaS5vcmc{u120}",
        "RubyGems": "rubygems_{h48}",
        "Docker Hub": "dckr_pat_{u27}",
        "Atlassian": "ATATT3xFfGF0{u170}={h8}",
        "Linear": "lin_api_{a40}",
        "Postman": "PMAK-{h24}-{h34}",
        "Doppler": "dp.pt.{a43}",
        "OpenAI, project": "sk-proj-{u74}",
        "OpenAI": "sk-{a48}",
        "Anthropic": "sk-ant-api03-{u93}AA",
        "Hugging Face": "hf_{a34}",
        "Groq": "gsk_{a52}",
        "Replicate": "r8_{a37}",
        "Stripe": "sk_live_{a24}",
        "Stripe webhook": "whsec_{a32}",
        "Square": "sq0atp-{u22}",
        "Shopify": "shpat_{h32}",
        "Slack bot": "xoxb-{d12}-{d13}-{a24}",
        "Slack webhook": "https://hooks.slack.com/services/T{A10}/B{A10}/{a24}",
        "SendGrid": "SG.{u22}.{u43}",
        "Twilio": "SK{h32}",
        "Mailgun": "key-{h32}",
        "Mailchimp": "{h32}-us12",
        "Telegram": "{d10}:AA{u33}",
        "Discord bot": "M{a23}.{u6}.{u38}",
        "Notion": "ntn_{a46}",
        "Figma": "figd_{u40}",
        "Airtable": "pat{a14}.{h64}",
        "Grafana": "glsa_{a32}_{h8}",
        "New Relic": "NRAK-{A27}",
        "age": "AGE-SECRET-KEY-1{A58}",
    }.items()
}  # fmt: skip
FORMATS["JSON web token"] = _jwt
FORMATS["AWS secret"] = _made("{b38}{a2}")
FORMATS["password"] = _password
FORMATS["URL with a password"] = lambda rng: (
    f"postgres://{rng.choice(['app', 'svc', 'root'])}:{_made('{a16}')(rng)}@db.internal:5432/main"
)
FORMATS["private key"] = lambda rng: (
    "-----BEGIN PRIVATE KEY-----\n"
    + "\n".join(_made("{b64}")(rng) for _ in range(5))
    + "\n-----END PRIVATE KEY-----"
)
NAMES = {
    "AWS secret": ("aws_secret_access_key", "AWS secret access key"),
    "password": ("password", "password"),
    "URL with a password": ("DATABASE_URL", "database"),
    "private key": ("tls_key", "key"),
}


def texts(name: str, value: str, split: str, rng: random.Random) -> dict[str, str]:
    """`value` as it stands in five sorts of text."""
    key, said = NAMES.get(name, ("token", "token"))
    if split == "dev":
        prose = [f"Rotate it: the {said} is {value} and it is live.", f"here's my {said}: {value}"]
    else:
        prose = [f"I think the {said} was {value} until Monday.", f"My {said} is {value}, right?"]
    upper = f"{key.upper()}"
    return {
        "prose": rng.choice(prose),
        "code": f'client = connect(region="eu", {key}="{value}", timeout=30)\nclient.ping()',
        "settings": f"DEBUG=0\n{upper}={value}\nLOG_LEVEL=info\n",
        "log": f"2026-11-03T09:12:44Z WARN auth: retry with {key}={value} attempt=2",
        "JSON": json.dumps({"service": "billing", key: value, "retries": 3}),
    }


async def sent(text: str, detectors: list[DetectorName], key: Path) -> str:
    model = Echo()
    channel = boundary(Pseudonym(detectors=detectors, key_file=key), model)
    await channel.bind("r").send(Ask(chat=(Turn("user", text),)))
    return model.seen[-1]


def secret_part(name: str, value: str) -> str:
    """What of a value is secret: of a URL its password, of a key's block what is in it."""
    if name == "URL with a password":
        return value.split(":")[2].split("@")[0]
    if name == "private key":
        return value.split("\n", 1)[1].rsplit("\n", 1)[0]
    return value


def left(text: str, secret: str, out: str) -> bool:
    """Whether at least one letter or digit of `secret` left."""
    written = secret if secret in text else json.dumps(secret)[1:-1]
    start = text.index(written)
    try:
        covered = hidden(text, out)
    except ValueError:
        return written in out
    return any(text[i].isalnum() and i not in covered for i in range(start, start + len(written)))


def code_lines(rng: random.Random, count: int) -> list[str]:
    """Blocks of ten lines from the standard library, `count` lines in all."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    blocks = []
    while len(blocks) * 10 < count:
        lines = rng.choice(files).read_text("utf-8", errors="replace").splitlines()
        if len(lines) > 40:
            at = rng.randrange(len(lines) - 10)
            blocks.append("\n".join(lines[at : at + 10]))
    return blocks


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--detectors", nargs="+", default=["presidio"])
    options = arguments.parse_args()
    rng = random.Random(f"credentials {options.split}")
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "key")
        for name, draw in FORMATS.items():
            for _ in range(EACH):
                value = draw(rng)
                for place, text in texts(name, value, options.split, rng).items():
                    out = asyncio.run(sent(text, options.detectors, key))
                    wrong = left(text, secret_part(name, value), out)
                    for group in (name, f"in {place}", "all"):
                        counts[group, "all"] += 1
                        counts[group, "left"] += wrong
        alarms = 0
        for block in code_lines(rng, LINES):
            out = asyncio.run(sent(block, options.detectors, key))
            alarms += sum("SECRET_" in line for line in out.splitlines())
    kept = Kept(f"credentials_{options.split}", settings={"detectors": options.detectors})
    for group in dict.fromkeys(g for g, _ in counts):
        n, wrong = counts[group, "all"], counts[group, "left"]
        low, high = wilson(wrong, n)
        if wrong or group == "all" or group.startswith("in "):
            print(f"{group:24} {wrong:5}/{n:5} {wrong / n:6.1%} [{low:.1%}, {high:.1%}]")
        kept.put(group, "share left in part", wrong / n, n=n, low=low, high=high)
    low, high = wilson(alarms, LINES)
    print(f"lines of code with a false alarm: {alarms}/{LINES} [{low:.2%}, {high:.2%}]")
    kept.put("code", "false alarms", alarms / LINES, n=LINES, low=low, high=high)
    kept.put("all", "formats", len(FORMATS))
    kept.write()


if __name__ == "__main__":
    main()
