"""Versions of the package and of what it stands on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_RECORDED = ("sclcm", "anndata", "numpy", "scanpy", "scipy", "torch")


def package_version(name: str = "sclcm") -> str:
    """Return the installed version of a distribution, "unknown" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def recorded_versions(names: tuple[str, ...] = _RECORDED) -> dict[str, str]:
    """Return the versions that are written beside a result, ready for `adata.uns`."""
    return {name: package_version(name) for name in names}
