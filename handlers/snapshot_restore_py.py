"""Hooks of SnapStart, for handlers to import: stands in for the module that the Lambda runtimes for Python have.

Names and behaviour are those of AWS's `snapshot-restore-py`; where the user's environment has that, it is used.
"""

from typing import Any, Callable, Dict, List, Tuple

__all__ = ["register_after_restore", "register_before_snapshot"]

Hook = Tuple[Callable[..., Any], Tuple[Any, ...], Dict[str, Any]]

_before_snapshot: List[Hook] = []
_after_restore: List[Hook] = []


def register_before_snapshot(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Have a function called before workers are forked, the last one that was registered first. Also a decorator."""
    _before_snapshot.append((func, args, kwargs))
    return func


def register_after_restore(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Have a function called in each worker before its first event, in order of registration. Also a decorator."""
    _after_restore.append((func, args, kwargs))
    return func


def get_before_snapshot() -> List[Hook]:
    """Give what was registered, in that order."""
    return _before_snapshot


def get_after_restore() -> List[Hook]:
    """Give what was registered, in that order."""
    return _after_restore
