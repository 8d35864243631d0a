"""Which operations of the API are carried out, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router.api.account import Account
from router.api.aliases import Aliases
from router.api.call import Answer, Call, Carry
from router.api.code_links import CodeLinks
from router.api.concurrency import Concurrency
from router.api.functions import Functions
from router.api.invoke import Invoke
from router.api.invoke_configs import InvokeConfigs
from router.api.mappings import MappingApi
from router.api.parts import Parts
from router.api.policies import Policies
from router.api.tags import Tags
from router.api.updates import Updates
from router.api.versions import Versions
from router.catalogue.catalogue import Catalogue

#: Operations that need no more of the catalogue than the function that they name, and see to that themselves.
_INVOKING: Final = ("Invoke", "InvokeAsync")


def carried(parts: Parts) -> Mapping[str, Carry]:
    """Give what carries each operation out, by the names in `operations`."""
    links = CodeLinks(parts)
    made = {
        **Invoke(parts).operations,
        **Functions(parts, links).operations,
        **Updates(parts).operations,
        **Versions(parts).operations,
        **Aliases(parts).operations,
        **Concurrency(parts).operations,
        **Policies(parts).operations,
        **Account(parts).operations,
        **Tags(parts).operations,
        **links.operations,
        **InvokeConfigs(parts).operations,
        **MappingApi(parts).operations,
    }
    return {name: carry if name in _INVOKING else _guarded(carry, parts.catalogue) for name, carry in made.items()}


def _guarded(carry: Carry, catalogue: Catalogue) -> Carry:
    """Carry nothing out while it is not known what there is."""

    async def guarded(call: Call) -> Answer:
        catalogue.check()
        return await carry(call)

    return guarded
