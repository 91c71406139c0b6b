"""The one error that knows its own code in the registry's protocol."""

from computeops.errors import ComputeOpsError


class OciError(ComputeOpsError):
    """An error with a code of OCI distribution-spec, section "Error Codes"."""

    def __init__(self, code: str, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.headers = headers or {}
