"""Plug-ins: stores and policies that other packages bring, by their entry points.

A package registers one in its metadata, ``digipoort_msa.stores`` or ``digipoort_msa.policies``; it is loaded
only where the settings name it.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from zope.interface import Interface

from digipoort_msa.interfaces import Facilities


def open_plugin(
    kind: str,
    name: str,
    interface: type[Interface],
    realm: str,
    settings: Mapping[str, Any],
    facilities: Facilities,
) -> Any:
    """Have a plug-in open its store, or make its policy.

    :param kind: "stores" or "policies".
    :param interface: what it has to provide.
    :param settings: its own table.
    :raise ValueError: it cannot be used; the text names the plug-in and the realm.
    """
    plugin = load_plugin(kind, name)
    try:
        made = plugin(realm, settings, facilities)
    except (ValueError, OSError) as error:
        raise ValueError(f"the plug-in {name!r} of realm {realm}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"the plug-in {name!r} of realm {realm} fails: {type(error).__name__}: {error}"
        ) from error
    if not interface.providedBy(made):
        raise ValueError(
            f"the plug-in {name!r} of realm {realm} gives a {type(made).__name__}, which does not provide "
            f"{interface.__name__}"
        )
    return made


def load_plugin(kind: str, name: str) -> Callable[..., Any]:
    """What a package registered under a name: a callable that opens a store or makes a policy.

    :param kind: "stores" or "policies".
    :raise ValueError: there is none, there are several, or it cannot be loaded.
    """
    found = tuple(entry_points(group=f"digipoort_msa.{kind}", name=name))
    if len(found) != 1:
        count = "no installed package has" if not found else "several installed packages have"
        raise ValueError(f"{count} {name!r} among its digipoort_msa.{kind}")
    try:
        plugin = found[0].load()
    except Exception as error:
        raise ValueError(f"the plug-in {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(plugin):
        raise ValueError(f"the plug-in {name!r} is {found[0].value}, which cannot be called")
    loaded: Callable[..., Any] = plugin
    return loaded
