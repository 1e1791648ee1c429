"""Requests to models: what they ask for, and the most that they may use."""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ledger.core.errors import UnknownPriceError
from ledger.core.values import UsageEstimate
from ledger.prices import Counts, PriceList, Rate, Rates
from ledger.prices.answers import MAPPINGS, Fields
from ledger.prices.kinds import AUDIO_SECONDS, CHARACTERS, INPUT
from ledger.prices.tokens import texts_in
from ledger.transport.protocols import CONVERSE, INVOKE, INVOKE_EMBEDDINGS, PROTOCOLS, Protocol

MEDIUM_TOKENS = 2_000
"""How many tokens are reserved for a picture or file in a request. Large pictures are 1,100 to
1,600 tokens."""

_LONG_TOKENS, _TEXTS_PER_SEARCH = 500, 100
"""For how many texts Cohere charges one search. A text that is longer, with the query, counts as
several."""
_SPOKEN_TOKENS, _SPOKEN_TOKENS_EACH = 100, 2
"""How many tokens of speech are reserved for each byte of text. A minute is 1,250 tokens of
gpt-4o-mini-tts, and about 900 letters of English."""
_BYTES_EACH_S, _LONGEST_S = 2_000, 3_600
"""What a second of sound has at least, which is speech at 16 kbit/s; and how long it is held where
the request does not have it."""
_PICTURES = frozenset({"images", "inputImage"})
"""The pictures of Cohere's embeddings, and the one of Amazon's."""
_BOUNDARY = b"--"
"""The first bytes of a form, with which no JSON begins."""
_FIELD = re.compile(rb'[; ]name=(?:"([^"]*)"|([^\s;"]+))')
_DIGITS = 18

PROVIDERS = {
    "api.anthropic.com": "anthropic",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.openai.com": "openai",
    "api.together.xyz": "together",
    "api.x.ai": "x-ai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": "openrouter",
}
"""The provider at a host, as price lists name it."""
_PROVIDER_ENDS = {
    ".openai.azure.com": "azure",
    ".services.ai.azure.com": "azure",
    "aiplatform.googleapis.com": "google",
}

_TIERS_TO_BE_CHOSEN = frozenset({"auto", "standard_only"})
"""Tiers that leave the choice to the provider; the answer names the tier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request to a model.

    Attributes:
        protocol: How it is spoken with.
        model: The model, None if the request names none.
        provider: Who serves it, None if the host is not known.
        service_tier: The tier that was asked for, None for the ordinary one.
        answers: How many answers are asked for.
        max_output_tokens: The most output of each answer, None if the request has no limit.
        body: What is sent.
        asks_usage: Whether the caller asked for the usage of a stream that leaves it out otherwise.
    """

    protocol: Protocol
    model: str | None
    provider: str | None
    service_tier: str | None = None
    answers: int = 1
    max_output_tokens: int | None = None
    body: Fields
    asks_usage: bool = False

    @property
    def leaves_usage_out(self) -> bool:
        """Whether the answer will be a stream without usage, unless it is asked for."""
        return (
            self.protocol.usage_on_request and bool(self.body.get("stream")) and not self.asks_usage
        )

    @property
    def output_limits(self) -> tuple[str, ...]:
        """The field in which the request says how much output it wants, or those in which it could.

        There are none if there is no output.
        """
        limits = self.protocol.limits if self.protocol.writes else ()
        said = (where for where in limits if _number(self.body, where) is not None)
        used = limits if self.max_output_tokens is None else itertools.islice(said, 1)
        return tuple(".".join(where) for where in used)

    def with_usage(self) -> bytes:
        """Return the request's content with the usage of its stream asked for."""
        options = self.body.get("stream_options")
        asked = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
        return json.dumps({**self.body, "stream_options": asked}).encode()

    def estimate(self, prices: PriceList, max_output_tokens: int) -> UsageEstimate:
        """Return what the call may use at most.

        Args:
            prices: What it costs.
            max_output_tokens: The most output, where the request has no limit of its own.

        Raises:
            UnknownPriceError: There is no price for it.
        """
        if self.model is None:
            raise UnknownPriceError("the request names no model, so its price is not known")
        if self.protocol.searched is not None:
            return self._estimate_of_searches(prices, self.model, self.protocol.searched)
        measured = self.heard_at(prices) or self.spoken_at(prices)
        if measured is not None:
            cost = prices.price(measured, model=self.model, provider=self.provider).cost_micros_usd
            return UsageEstimate(cost_micros_usd=cost)
        input_tokens, output_tokens = self.tokens(max_output_tokens)
        return prices.estimate(
            model=self.model,
            provider=self.provider,
            input_tokens=input_tokens,
            max_output_tokens=output_tokens,
            service_tier=self.service_tier,
            kinds=self.protocol.kinds,
        )

    def spoken_at(self, prices: PriceList) -> Counts | None:
        """Return the characters that are charged, None if the call is not charged by characters."""
        text = self.body.get(self.protocol.spoken) if self.protocol.spoken else None
        if not isinstance(text, str) or CHARACTERS not in self._rates(prices):
            return None
        return Counts(characters=len(text))

    def heard_at(self, prices: PriceList) -> Counts | None:
        """Return the seconds that a file of sound has at most, None if they are not charged."""
        if self.protocol.heard is None:
            return None
        rates = self._rates(prices)
        if AUDIO_SECONDS not in rates or INPUT in rates:
            return None
        file = self.body.get(self.protocol.heard)
        seconds = file.get("seconds") if isinstance(file, dict) else None
        return Counts(audio_seconds=_LONGEST_S if seconds is None else seconds)

    def _rates(self, prices: PriceList) -> Mapping[str, Rate]:
        """Return what the model costs by kind; nothing if that is not known."""
        found = None if self.model is None else _priced_at(self.model, prices, self.provider)
        return {} if found is None else found.rates

    def _estimate_of_searches(self, prices: PriceList, model: str, name: str) -> UsageEstimate:
        """Return the most that a search of texts may use; a long text counts as several."""
        searched = self.body.get(name)
        query = texts_in(self.body.get("query")).tokens(model)
        texts = [
            texts_in(one).tokens(model)
            for one in (searched if isinstance(searched, list) else [searched])
        ]
        parts = sum(-(-max(1, query + one) // _LONG_TOKENS) for one in texts)
        searches = Counts(web_searches=-(-parts // _TEXTS_PER_SEARCH))
        cost = prices.price(searches, model=model, provider=self.provider).cost_micros_usd
        tokens = query + sum(texts)
        return UsageEstimate(input_tokens=tokens, total_tokens=tokens, cost_micros_usd=cost)

    def tokens(self, max_output_tokens: int) -> tuple[int, int]:
        """Return the estimated tokens of the input, and the most tokens of the output."""
        given = {name: self.body[name] for name in self.protocol.inputs if name in self.body}
        for name in _PICTURES & given.keys():  # they hold files, or their addresses, without a type
            found, one = given[name], {"type": "image"}
            given[name] = [one] * len(found) if isinstance(found, list) else one
        found = texts_in(given)
        most = self.max_output_tokens
        if most is None and self.protocol.spoken is not None:
            text = str(self.body.get(self.protocol.spoken)).encode("utf-8", "surrogatepass")
            most = _SPOKEN_TOKENS + _SPOKEN_TOKENS_EACH * len(text)
        if most is None:
            most = max(max_output_tokens, self.protocol.at_least)
        return (
            found.tokens(self.model) + MEDIUM_TOKENS * found.media,
            most * self.answers * self.protocol.writes,
        )


def read_request(protocol: Protocol, path: str, content: bytes, *, provider: str | None) -> Asked:
    """Return what a request asks a model for.

    Args:
        protocol: How it is spoken with.
        path: Of the request, without the query.
        content: The request's content.
        provider: Who serves it, None if that is not known.
    """
    try:
        body = _form(content) if content.startswith(_BOUNDARY) else json.loads(content)
    except (ValueError, RecursionError):  # it is too deep
        body = {}
    if not isinstance(body, dict):
        body = {}
    tier = body.get("service_tier")
    options = body.get("stream_options")
    return Asked(
        protocol=protocol,
        model=_model(path, body),
        provider=provider,
        service_tier=tier if isinstance(tier, str) and tier not in _TIERS_TO_BE_CHOSEN else None,
        answers=max(1, _number(body, protocol.answers) or 1),
        max_output_tokens=next(
            (most for where in protocol.limits if (most := _number(body, where)) is not None), None
        ),
        body=body,
        asks_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _form(content: bytes) -> dict[str, object]:
    """Return the fields of a form, with each file as a part that is not text."""
    fields: dict[str, list[object]] = {}
    for part in content.split(content[: content.find(b"\r\n")]):
        end = part.find(b"\r\n\r\n")
        head = part[: max(0, end)]
        named = _FIELD.search(head)
        if named is not None:
            name = (named[1] or named[2] or b"").decode("utf-8", "replace")
            is_file = b"filename=" in head
            value = _file(part, end + 4) if is_file else _in_form(part[end + 4 :])
            fields.setdefault(name, []).append(value)
    return {name: given[0] if len(given) == 1 else given for name, given in fields.items()}


def _file(part: bytes, begin: int) -> dict[str, object]:
    """Return what is known of a file, without a copy of it: how long it is if it is sound."""
    size, rate = len(part) - begin, _BYTES_EACH_S
    if part.startswith(b"RIFF", begin) and part.startswith(b"WAVEfmt ", begin + 8):
        (rate,) = struct.unpack_from("<I", part.ljust(begin + 32, b"\0"), begin + 28)
    return {"type": "file", "seconds": -(-size // max(1, rate))}


def _in_form(value: bytes) -> int | str:
    text = value.removesuffix(b"\r\n")
    is_number = text.isdigit() and len(text) < _DIGITS
    return int(text) if is_number else text.decode("utf-8", "replace")


def protocol_of(method: str, path: str) -> Protocol | None:
    """Return the protocol of a request, None if it is not known."""
    if method != "POST":
        return None
    return next((one for one in PROTOCOLS if path.endswith(one.paths)), None) or _of_bedrock(path)


def _of_bedrock(path: str) -> Protocol | None:
    model = bedrock_model(path)
    if model is None:
        return None
    if path.endswith(CONVERSE.paths):
        return CONVERSE
    return INVOKE_EMBEDDINGS if "embed" in model else INVOKE


_BEDROCK = re.compile(
    r"/model/(.+)/(?:converse|converse-stream|invoke|invoke-with-response-stream)$"
)
_MODEL_ARN = re.compile(r"arn:[^/]+:(?:foundation-model|inference-profile)/(.+)")
"""Matches names that contain a model's name, which those of users' profiles and throughput do
not."""


def bedrock_model(path: str) -> str | None:
    """Return the model that a request to Amazon Bedrock names, None if it is none."""
    found = _BEDROCK.search(path)
    if found is None:
        return None
    named = unquote(found[1])
    arn = _MODEL_ARN.fullmatch(named)
    return named if arn is None else arn[1]


def _model(path: str, body: Fields) -> str | None:
    if "/model/" in path and (of_bedrock := bedrock_model(path)) is not None:
        return of_bedrock
    model = body.get("model")
    if isinstance(model, str) and model:
        return model
    # Gemini, Claude on Vertex AI, and Azure's deployments have it in the path.
    for folder in ("/models/", "/deployments/"):
        _, found, rest = path.partition(folder)
        if found:
            return rest.partition("/")[0].partition(":")[0] or None
    return None


def provider_of(host: str) -> str | None:
    """Return the provider at a host, None if it is not known."""
    found = PROVIDERS.get(host)
    if found is None:
        found = next((name for end, name in _PROVIDER_ENDS.items() if host.endswith(end)), None)
    return found


def served_by(asked: Asked, prices: PriceList, said: str | None) -> str | None:
    """Return the provider of a request, as price lists name it; None if it is not known.

    A provider that was named for reports may not be in the price list. At an unknown address the
    provider is that of the model in the list, or else that of the protocol.

    Args:
        asked: The request, with the provider that the program or the host names.
        prices: What calls cost.
        said: The provider in the call's attribution.
    """
    if asked.model is None or (said in {None, asked.provider} and asked.provider is not None):
        return said or asked.provider
    if said is not None and _priced_at(asked.model, prices, said) is not None:
        return said
    if asked.provider is not None:
        return asked.provider
    anywhere = _priced_at(asked.model, prices, None)
    if anywhere is not None:
        return anywhere.provider
    spoken = asked.protocol.provider
    return None if _priced_at(asked.model, prices, spoken) is None else spoken


def _priced_at(model: str, prices: PriceList, provider: str | None) -> Rates | None:
    try:
        return prices.rates(model, provider=provider)
    except UnknownPriceError:
        return None


def _number(body: Fields, where: Sequence[str]) -> int | None:
    found: Any = body
    for name in where:
        found = found.get(name) if isinstance(found, MAPPINGS) else None
    return found if type(found) is int and found >= 0 else None
