"""What a server is told about who we are. Secrets are read when they are needed, so that new ones are taken up."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from bus.credentials import read_secret
from bus.errors import BusURLError, MissingExtraError
from bus.secret import Secret

__all__ = ["Login"]

_CREDENTIALS = re.compile(r"-{3,}BEGIN ([A-Z ]+)-{3,}\s+(\S+)\s+-{3,}END")


@dataclass(frozen=True, slots=True)
class Login:
    """One way to log in, or none. ``repr`` shows no secret: passwords and tokens are :class:`Secret`."""

    user: str | None = None
    password: Secret | None = None
    password_file: str = ""
    token: Secret | None = None
    token_file: str = ""
    nkey_file: str = ""
    creds_file: str = ""

    @property
    def given(self) -> bool:
        """Whether there is anything to log in with."""
        return self != Login()

    def answer(self, nonce: str) -> dict[str, Any]:
        """The fields of CONNECT that log in. ``nonce`` is the server's, to be signed by a key.

        Raises:
            BusURLError: for a file that cannot be read or holds something else.
            MissingExtraError: if the library that signs is not installed.
        """
        if self.user is not None:
            password = (
                self.password.reveal() if self.password else read_secret("nats", "password_file", self.password_file)
            )
            return {"user": self.user, "pass": password}
        if self.token is not None:
            return {"auth_token": self.token.reveal()}
        if self.token_file:
            return {"auth_token": read_secret("nats", "token_file", self.token_file)}
        if self.nkey_file:
            public, signature = _sign("nkey_file", read_secret("nats", "nkey_file", self.nkey_file), nonce)
            return {"nkey": public, "sig": signature}
        if self.creds_file:
            parts = dict(_CREDENTIALS.findall(read_secret("nats", "creds_file", self.creds_file)))
            if not {"NATS USER JWT", "USER NKEY SEED"} <= parts.keys():
                raise BusURLError(
                    f"nats: creds_file {self.creds_file} does not hold both a NATS USER JWT and a USER NKEY SEED"
                )
            _, signature = _sign("creds_file", parts["USER NKEY SEED"], nonce)
            return {"jwt": parts["NATS USER JWT"], "sig": signature}
        return {}


def _sign(name: str, seed: str, nonce: str) -> tuple[str, str]:
    try:
        import nkeys
    except ImportError as error:
        raise MissingExtraError(f"nats: {name} needs nkeys: pip install 'taskbus[nats]'", extra="nats") from error
    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        signature = base64.b64encode(pair.sign(nonce.encode())).decode()
        return bytes(pair.public_key).decode(), signature
    except Exception:  # the library raises whatever base32 and libsodium do; its texts might show the seed
        raise BusURLError(f"nats: {name} holds no nkey seed") from None
