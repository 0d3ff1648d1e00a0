"""Keeps WebRTC on loopback inside OpenTalking's processes, without touching OpenTalking.

What comes in: the import of aiortc, in a process that has this folder on PYTHONPATH and
TALKSCOPE_LOOPBACK_ICE=1 in its environment. What goes out: the same library, except that

* aioice offers one host candidate, 127.0.0.1, or those that TALKSCOPE_MEDIA_ADDRESSES lists, with
  commas between (normally it offers every address but that),
* aioice resolves no `.local` candidate of a browser, which would send multicast DNS,
* aiortc has no default ICE server (it is a public STUN server otherwise),

so that no packet leaves the machine. If a name that it replaces is gone, which a new release may
bring about, the process ends at once with exit status 78: packets would leave the machine unseen.
It must not know of OpenTalking.

Python imports a module of this name by itself at start. Standard library only.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

# EX_CONFIG of sysexits.h.
UNSAFE = 78


def _fail(reason: str) -> NoReturn:
    # os._exit, because an ImportError raised here could be caught by whoever imports aiortc.
    print(
        f"talkscope: cannot keep WebRTC on loopback: {reason}. "
        "Install the versions that deploy/demo/requirements-opentalking.txt locks.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(UNSAFE)


def _replace(owner: object, name: str, replacement: object) -> None:
    if not hasattr(owner, name):
        _fail(f"{getattr(owner, '__name__', owner)} has no {name}")
    setattr(owner, name, replacement)


def _told_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    # Others than loopback's are for network namespaces and containers of the same machine.
    told = os.environ.get("TALKSCOPE_MEDIA_ADDRESSES", "127.0.0.1")
    return told.split(",") if use_ipv4 else []


class _DeafResolver:
    async def resolve(self, hostname: str) -> None:
        """Find nothing: aioice then ignores the candidate."""


async def _no_multicast(subscriber: object) -> _DeafResolver:
    return _DeafResolver()


def _patch_aioice(module: ModuleType) -> None:
    _replace(module, "get_host_addresses", _told_addresses)
    _replace(module, "get_or_create_mdns_protocol", _no_multicast)


def _patch_aiortc(module: ModuleType) -> None:
    gatherer = getattr(module, "RTCIceGatherer", None)
    if gatherer is None:
        _fail("aiortc.rtcicetransport has no RTCIceGatherer")
    _replace(gatherer, "getDefaultIceServers", classmethod(lambda cls: []))


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "aioice.ice": _patch_aioice,
    "aiortc.rtcicetransport": _patch_aiortc,
}


def _check_all_patched(module: ModuleType) -> None:
    # aiortc has imported both by now; if it has not, they have moved and nothing was replaced.
    missing = [name for name in _PATCHES if name not in sys.modules]
    if missing:
        _fail(f"importing aiortc did not import {' or '.join(missing)}")


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the usual machinery find three modules, and acts once each has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        act = _check_all_patched if fullname == "aiortc" else _PATCHES.get(fullname)
        if act is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            _act_after_execution(spec.loader, act)
        return spec


def _act_after_execution(loader: importlib.abc.Loader, act: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def execute_and_act(module: ModuleType) -> None:
        execute(module)
        act(module)

    # A loader serves one module, so replacing the method on the instance reaches nothing else.
    loader.exec_module = execute_and_act  # type: ignore[method-assign]


if os.environ.get("TALKSCOPE_LOOPBACK_ICE") == "1":
    sys.meta_path.insert(0, _Finder())
