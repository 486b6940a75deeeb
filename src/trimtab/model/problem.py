"""The one exception that carries its own fix."""


class Problem(Exception):
    """Something a person can put right: one line that says what is wrong, one that says what to do.

    The command line prints both and exits with 1; nothing else needs to know how.

    Args:
        what: What is wrong, naming the field, file or program. No trailing period.
        fix: What to do about it, in the imperative.
    """

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\nfix: {self.fix}" if self.fix else self.what
