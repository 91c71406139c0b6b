"""The policy: what evidence an image must have, and the single gate that decides.

A policy is a TOML file:

    keys = ["SHA256:..."]        # optional: passing evidence counts only by these keys, else by all of the keyring
    none_failed = ["test"]       # kinds of which no known key may have signed a "failed"

    [passed]                     # kind to the number of different keys that must have signed a passing one
    provenance = 1
    "https://example.org/review/v1" = 2

A kind is a URI, or one of the words in `WORDS`.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from computeops.errors import FormatError, LimitError, PolicyError, TrustError, UsageError, did_you_mean
from computeops.limits import LIMITS
from computeops.model import Digest, Evidence, Image, Policy, Signed
from computeops.sign import dsse
from computeops.sign.key import Key

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "provenance": "https://slsa.dev/provenance/v1",
        "test": "https://in-toto.io/attestation/test-result/v0.1",
        "cyclonedx": "https://cyclonedx.org/bom",
        "spdx": "https://spdx.dev/Document",
        "vulns": "https://in-toto.io/attestation/vulns/v0.2",
        "rebuild": "https://computeops.org/evidence/rebuild/v1",
    }
)
"""What people write for a kind in a policy."""

RELEASE = Policy(passed=MappingProxyType({WORDS["provenance"]: 1}), none_failed=frozenset({WORDS["test"]}))
"""Of `push` and `pull` where nothing else is asked: somebody we know built it, and nobody we know saw a test fail."""

_KEYID = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_KEYS = ("keys", "none_failed", "passed")


@dataclass(frozen=True, slots=True)
class Verified:
    """One piece of evidence about the image that was asked about, and who signed it."""

    evidence: Evidence
    signers: frozenset[str]
    """Ids of known keys whose signatures hold; empty: signed by nobody we know, so it counted for nothing."""


def trust(image: Image, evidence: Sequence[Signed], keys: Mapping[str, Key], policy: Policy) -> tuple[Verified, ...]:
    """Return the evidence with its signers; raise unless it is all about `image` and satisfies `policy`.

    The single gate: publish, pull, run, submit and the hub pass through it. It fails closed.

    1. The policy asks for something; an empty one never holds.
    2. Every envelope parses: an in-toto Statement v1 in DSSE.
    3. Every statement is about this image: it names a digest that was computed here (see `computed`).
    4. Every signature in the name of a known key holds. Others are not looked at and count for nothing.
    5. Of no kind in `policy.none_failed` has a known key signed a "failed", whenever and however many others passed.
    6. Of each kind in `policy.passed`, enough different keys signed one that passed.

    Raises:
        FormatError, LimitError: of step 2.
        TrustError: of steps 3 and 4.
        PolicyError: of steps 1, 5 and 6.
    """
    # (1) Without a demand for passing evidence, an image with no evidence at all would be trusted.
    if not policy.passed or min(policy.passed.values()) < 1:
        raise PolicyError("an empty policy never holds", hint="ask for at least one signer of one kind under [passed]")

    # (2) and (3), before signatures count: good evidence of another image is the attack that signatures do not stop.
    statements = about(image, evidence)

    # (4) The ids are computed from our keys, so one key is one signer, whatever an envelope calls it and how often.
    verified = tuple(
        Verified(statement, dsse.signers(signed, keys)) for statement, signed in zip(statements, evidence, strict=True)
    )

    # (5) A failure counts by every known key, not only by `policy.keys`, and is not undone by a later or earlier pass.
    for one in verified:
        if one.signers and one.evidence.kind in policy.none_failed and one.evidence.passed is False:
            raise PolicyError(f"{_word(one.evidence.kind)}: failed, says {_names(one.signers, keys)}")

    # (6) Different keys: ten passing tests by one key are one signer.
    for kind, wanted in policy.passed.items():
        found = _passing(kind, verified, policy)
        if len(found) < wanted:
            by = f", by {_names(found, keys)}" if found else ""
            there = any(statement.kind == kind for statement in statements)
            said = f"passed and signed by {len(found)} known keys{by}" if there else "there is none beside the image"
            claimed = _strangers(kind, statements, evidence, keys)
            raise PolicyError(
                f"{_word(kind)}: {said}; the policy asks for {wanted}",
                hint=(f"it is signed by {claimed}, whom you do not know; " if claimed else "")
                + "`computeops key list` shows whom you trust; `computeops key import NAME FILE` adds a key",
            )
    return verified


def about(image: Image, evidence: Sequence[Signed]) -> tuple[Evidence, ...]:
    """Return the statements in the envelopes, whoever signed them; raise unless each is about `image`.

    Strangers' envelopes too: a store that gives rubbish is not one to take an image from.

    Raises:
        FormatError, LimitError: an envelope has no statement that is read here.
        TrustError: a statement is about another image.
    """
    statements, here = tuple(dsse.read(signed) for signed in evidence), computed(image)
    for statement in statements:
        _check_subject(statement, here)
    return statements


def computed(image: Image) -> Mapping[str, Digest]:
    """Return those digests of `image` that were computed from its content here, by the names of subjects.

    What a file says about itself is not among them. A SIF carries an OCI config and manifest, and an OCI manifest names
    a config, that may be those of a better image: only after `image.convert.prove` is the identity known. Until then a
    SIF is known by the digest of its own bytes, and an OCI image by its manifest, which names its layers by theirs.
    """
    names = {"sif"} if image.form == "sif" else {"manifest"}
    names |= {"image"} if image.proven else set()
    return {name: digest for name, digest in image.subjects.items() if name in names}


def narrowed(image: Image, evidence: Evidence) -> Evidence:
    """Return `evidence` about only those digests of `image` that were computed here: what may be signed.

    Whoever signs an ID that a file only claims to have vouches for the image whose ID was borrowed.

    Raises:
        TrustError: none of its subjects was computed here.
    """
    here = computed(image)
    subjects = {name: digest for name, digest in evidence.subjects.items() if here.get(name) == digest}
    if not subjects:
        raise TrustError(f"{_word(evidence.kind)}: names no digest of {image.path} that was computed here")
    return replace(evidence, subjects=subjects)


def _check_subject(statement: Evidence, here: Mapping[str, Digest]) -> None:
    """Compare the strongest name that both sides have: the image ID, else the manifest, else the SIF.

    One image can have several manifests and SIFs (other compressors), so a weaker name may differ where a stronger one
    agrees; never the other way round. Names besides these three would let one statement vouch for many images.
    """
    if strange := sorted(set(statement.subjects) - {"image", "manifest", "sif"}):
        raise TrustError(
            f"{_word(statement.kind)}: its subject {strange[0]!r} is not a form of one image",
            hint="evidence about an image names it as image, manifest and sif",
        )
    for name in ("image", "manifest", "sif"):
        if name in here and name in statement.subjects:
            if here[name] == statement.subjects[name]:
                return
            raise TrustError(
                f"{_word(statement.kind)}: is about {name} {statement.subjects[name]}, this is {here[name]}",
                hint="the evidence belongs to another image; take image and evidence from one release",
            )
    known = ", ".join(f"{name} {digest}" for name, digest in here.items()) or "no digest that was computed here"
    raise TrustError(f"{_word(statement.kind)}: is not about this image, which has {known}")


def _passing(kind: str, verified: Sequence[Verified], policy: Policy) -> frozenset[str]:
    """Return who signed evidence of `kind` that passed; where the kind has verdicts, none is not a pass."""
    found: set[str] = set()
    for one in verified:
        has_verdict = kind in policy.none_failed or kind == WORDS["test"]
        passed = one.evidence.passed is True if has_verdict else one.evidence.passed is not False
        if one.evidence.kind == kind and passed:
            found |= one.signers & policy.keys if policy.keys else one.signers
    return frozenset(found)


def _strangers(kind: str, statements: Sequence[Evidence], evidence: Sequence[Signed], keys: Mapping[str, Key]) -> str:
    """Return the ids, as envelopes of `kind` give them, of keys that are not known here."""
    known = {key.keyid for key in keys.values()}
    given = {
        one.keyid
        for statement, signed in zip(statements, evidence, strict=True)
        if statement.kind == kind
        for one in signed.signatures
    }
    return ", ".join(sorted(one for one in given - known if _KEYID.fullmatch(one))[:3])


def load(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        UsageError: it cannot be read, or a key or value in it is wrong.
        LimitError: it is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.recipe_bytes + 1)
        if len(data) > LIMITS.recipe_bytes:
            raise LimitError(f"{path} is larger than {LIMITS.recipe_bytes} bytes")
        return parse(data.decode())
    except OSError as error:
        raise UsageError(f"cannot read the policy {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"the policy {path} is not a text in UTF-8") from None
    except FormatError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None


def parse(text: str) -> Policy:
    """Read a policy as this module describes it.

    Raises:
        FormatError: it is not TOML, or a key or value in it is wrong.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of TOML, and of an integer of thousands of digits
        raise FormatError(f"not TOML: {error}") from error
    for name in data:
        if name not in _KEYS:
            raise FormatError(f"unknown key {name!r}{did_you_mean(name, _KEYS)}", hint=f"keys are {', '.join(_KEYS)}")
    passed = data.get("passed", {})
    if not isinstance(passed, dict) or not passed:
        raise FormatError("[passed] is empty or missing", hint="write for example:\n[passed]\nprovenance = 1")
    counts = {_kind(word): _count(word, number) for word, number in passed.items()}
    if len(counts) != len(passed):
        raise FormatError("[passed] has one kind twice, as a word and as its URI")
    return Policy(
        passed=MappingProxyType(counts),
        none_failed=frozenset(_kind(word) for word in _texts(data, "none_failed")),
        keys=frozenset(_keyid(text) for text in _texts(data, "keys")),
    )


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise FormatError(f"{name} must be a list of texts, not {found!r:.80}")
    return found


def _kind(word: str) -> str:
    if word in WORDS:
        return WORDS[word]
    if "://" not in word:
        raise FormatError(
            f"unknown kind of evidence {word!r}{did_you_mean(word, WORDS)}",
            hint=f"write a URI or one of {', '.join(WORDS)}",
        )
    return word


def _count(word: str, number: Any) -> int:
    if type(number) is not int or number < 1:
        raise FormatError(f"passed.{word} must be a number of signers, 1 or more, not {number!r:.80}")
    return number


def _keyid(text: str) -> str:
    if not text.startswith("SHA256:"):
        raise FormatError(f"not a keyid: {text!r:.80}", hint="`computeops key list` shows the keyids: SHA256:...")
    return text


def _word(kind: str) -> str:
    return next((word for word, uri in WORDS.items() if uri == kind), kind)


def _names(ids: frozenset[str], keys: Mapping[str, Key]) -> str:
    """Name keys for people: the name in the keyring and the id."""
    by_id = {key.keyid: key.name for key in keys.values()}
    return ", ".join(f"{by_id.get(one, '?')} ({one})" for one in sorted(ids))
