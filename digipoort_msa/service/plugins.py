"""Plug-ins: stores and policies that other packages bring, by their entry points.

A package registers one in its metadata, ``digipoort_msa.stores`` or ``digipoort_msa.policies``; it is loaded
only where the settings name it.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from zope.interface import Interface, Invalid, providedBy
from zope.interface.verify import verifyObject

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
    which = f"the plug-in {name!r} of realm {realm}"
    try:
        made = plugin(realm, settings, facilities)
    except (ValueError, OSError) as error:
        raise ValueError(f"{which}: {_one_line(str(error))}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{which} fails: {_shown(error)}") from error
    if not interface.providedBy(made):
        raise ValueError(
            f"{which} gives a {type(made).__name__}, which does not provide {interface.__name__}: its class "
            f"should say @implementer({interface.__name__})"
        )
    for declared in providedBy(made).flattened():
        if declared.extends(interface, strict=False):
            _in_full(which, declared, made)
    return made


def _in_full(which: str, interface: type[Interface], made: Any) -> None:
    """It has what it declares: a method that is missing would show only when it is called."""
    try:
        verifyObject(interface, made)
    except Invalid as error:
        raise ValueError(f"{which} is no {interface.__name__}: {_one_line(str(error))}") from error
    mechanisms: object = getattr(made, "mechanisms", frozenset())
    if not isinstance(mechanisms, frozenset) or not all(isinstance(each, str) for each in mechanisms):
        raise ValueError(f"{which} has mechanisms {mechanisms!r}: should be a frozenset of texts")


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
    except (Exception, SystemExit) as error:
        raise ValueError(f"the plug-in {name!r} cannot be loaded: {_shown(error)}") from error
    if not callable(plugin):
        raise ValueError(f"the plug-in {name!r} is {found[0].value}, which cannot be called")
    loaded: Callable[..., Any] = plugin
    return loaded


def _shown(error: BaseException) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    """Its words may be of a back end, and go to a terminal and a journal."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
