"""What of the daemon's environment tells a function's AWS libraries who they are, and where AWS is.

Handlers get what the daemon itself goes by: the variables through which the AWS libraries find credentials, not what
they find. So a role, a profile or a service that hands out credentials for an hour is asked by the handler's own
library, which renews them as the daemon's does; a copy would end with its worker still running. (AWS SDKs and tools
reference guide, "Settings reference".)

None of this is logged, and a function that names one of the variables for credentials itself has none of the daemon's.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

#: Who we are.
CREDENTIALS: Final = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_CONFIG_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_DEFAULT_PROFILE",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }
)
#: How AWS is reached; those of single services have its name behind AWS_ENDPOINT_URL.
_ENDPOINT: Final = "AWS_ENDPOINT_URL"
_WAYS: Final = frozenset({"AWS_CA_BUNDLE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_STS_REGIONAL_ENDPOINTS"})
#: They name files, which workers look for from another folder.
_FILES: Final = frozenset(
    {
        "AWS_CA_BUNDLE",
        "AWS_CONFIG_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }
)


def aws_variables(daemon: Mapping[str, str], own: Collection[str], endpoint_url: str | None) -> dict[str, str]:
    """Give the variables that workers get for their AWS libraries.

    Args:
        daemon: the daemon's environment.
        own: names of the variables that the function sets itself.
        endpoint_url: that of the `aws` block; it goes before all endpoints of the environment, as for the daemon.
    """
    wanted = set(_WAYS)
    if CREDENTIALS.isdisjoint(own):
        wanted |= CREDENTIALS
    if endpoint_url is None:
        wanted |= {name for name in daemon if name == _ENDPOINT or name.startswith(f"{_ENDPOINT}_")}
    found = {name: daemon[name] for name in wanted & daemon.keys()}
    for name in _FILES & found.keys():
        found[name] = os.path.abspath(os.path.expanduser(found[name]))  # noqa: PTH100, PTH111 - Path keeps `..`
    return {**found, _ENDPOINT: endpoint_url} if endpoint_url else found


def usual_region(daemon: Mapping[str, str]) -> str | None:
    """Give the region that the environment or the profile says, as the AWS libraries read them; None = neither does."""
    if region := daemon.get("AWS_DEFAULT_REGION"):
        return region
    profile = daemon.get("AWS_DEFAULT_PROFILE") or daemon.get("AWS_PROFILE") or "default"
    return _region_of(profile, daemon.get("AWS_CONFIG_FILE") or "~/.aws/config")


@lru_cache(maxsize=8)  # it is asked for at every call of the API, and functions do not move while the daemon runs
def _region_of(profile: str, path: str) -> str | None:
    file = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        file.read(Path(path).expanduser(), "utf-8")
    except (OSError, ValueError, RuntimeError, configparser.Error):  # the libraries say so when it is needed
        return None
    sections = (profile, f"profile {profile}") if profile == "default" else (f"profile {profile}",)
    return next((file[name]["region"] for name in sections if file.has_option(name, "region")), None)
