"""What a phone says of itself: what it is, how its clock may move, how warm it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

#: Asks for it all at once. What a phone does not have or hides is left empty.
SCRIPT = """
for p in ro.product.manufacturer ro.product.model ro.soc.manufacturer ro.soc.model ro.board.platform \
ro.hardware ro.build.version.release ro.serialno; do echo "$p=$(getprop $p)"; done
for c in /sys/devices/system/cpu/cpu[0-9]*; do
  f=$c/cpufreq
  echo "core=${c##*/cpu},$(cat $f/scaling_governor),$(cat $f/scaling_min_freq),$(cat $f/scaling_max_freq),\
$(cat $f/cpuinfo_max_freq)"
done 2>/dev/null
echo "battery=$(cat /sys/class/power_supply/battery/temp 2>/dev/null || \
  dumpsys battery | sed -n 's/ *temperature: //p')"
echo "throttling=$(dumpsys thermalservice 2>/dev/null | sed -n 's/^Thermal Status: //p')"
"""
#: Warm enough to slow many phones down soon, and a rise that is worth telling, in °C.
_WARM, _RISE = 40.0, 4.0
_ADVICE = "latencies move with it; on a rooted phone, fix it"


class Core(NamedTuple):
    """A core: its number, its governor, limits of its clock and what the hardware can do, in MHz."""

    number: int
    governor: str
    least: int
    most: int
    hardware: int


class Phone(NamedTuple):
    """What a phone says of itself.

    Attributes:
        name: maker and model.
        soc: system on a chip.
        android: version.
        serial: of the hardware, whichever way it is reached.
        cores: the cores whose clock it tells.
        celsius: temperature of the battery; None if it is hidden.
        throttling: level at which Android slows it down for heat; 0 if it does not, or is older than 10.
    """

    name: str
    soc: str
    android: str
    serial: str
    cores: tuple[Core, ...]
    celsius: float | None
    throttling: int

    def used(self, mask: str) -> tuple[Core, ...]:
        """The cores that ``taskset`` allows with a mask in hex; all without one."""
        allowed = int(mask, 16) if mask else -1
        return tuple(core for core in self.cores if allowed >> core.number & 1)


def read_phone(output: str) -> Phone:
    """Read the answer to :data:`SCRIPT`."""
    lines = [line.partition("=") for line in output.splitlines() if "=" in line]
    said = {key: value.strip() for key, _, value in lines}
    name = f"{said.get('ro.product.manufacturer', '')} {said.get('ro.product.model', '')}".strip()
    soc = f"{said.get('ro.soc.manufacturer', '')} {said.get('ro.soc.model', '')}".strip()
    cores = [_core(value) for key, _, value in lines if key == "core"]
    tenths, level = said.get("battery", ""), said.get("throttling", "")
    return Phone(
        name or "unnamed phone",
        soc or said.get("ro.board.platform") or said.get("ro.hardware") or "unknown",
        said.get("ro.build.version.release", ""),
        said.get("ro.serialno", ""),
        tuple(sorted(core for core in cores if core is not None)),
        int(tenths) / 10 if re.fullmatch(r"-?\d+", tenths) else None,
        int(level) if level.isdigit() else 0,
    )


def _core(text: str) -> Core | None:
    number, governor, *clocks = (part.strip() for part in text.split(","))
    if not all(clock.isdigit() for clock in (number, *clocks)) or len(clocks) != 3:
        return None  # switched off, or hidden
    least, most, hardware = (round(int(clock) / 1e3) for clock in clocks)
    return Core(int(number), governor, least, most, hardware)


def described(phone: Phone, mask: str) -> list[str]:
    """Say what the phone is and how it may move while it is measured; warnings come last."""
    found = [f"{phone.name}, SoC {phone.soc}, Android {phone.android or 'of an unknown version'}"]
    warnings = []
    cores = phone.used(mask)
    for numbers, core in _alike(cores):
        found.append(f"{numbers}: governor {core.governor}, {core.least} to {core.most} MHz")
        if core.least < core.most:
            warnings.append(
                f"the clock of {numbers} may move from {core.least} to {core.most} MHz (governor "
                f"{core.governor}); {_ADVICE}"
            )
        if core.most < core.hardware:
            warnings.append(f"the clock of {numbers} is limited to {core.most} of {core.hardware} MHz")
    if not cores:
        warnings.append("it does not tell the clock of its cores; latencies may move with it unseen")
    if len({core.hardware for core in cores}) > 1:
        warnings.append("its cores are of different speed, and a run may move between them; use --taskset")
    if phone.celsius is not None:
        found.append(f"its battery has {phone.celsius:.1f} °C")
        if phone.celsius >= _WARM:
            warnings.append(f"it is warm ({phone.celsius:.1f} °C), and may slow down; let it cool")
    if phone.throttling:
        warnings.append(f"Android slows it down for heat (level {phone.throttling}); let it cool")
    return found + [f"warning: {one}" for one in warnings]


def moved(before: Phone, now: Phone, mask: str) -> list[str]:
    """Warn of what has changed since ``before``."""
    found = []
    earlier = {core.number: core for core in before.used(mask)}
    changed = [core for core in now.used(mask) if core != earlier.get(core.number)]
    for numbers, core in _alike(changed):
        was = earlier.get(core.number)
        if was is not None:
            found.append(
                f"{numbers}: governor {was.governor}, {was.least} to {was.most} MHz, became {core.governor}, "
                f"{core.least} to {core.most} MHz"
            )
    if before.celsius is not None and now.celsius is not None and now.celsius >= before.celsius + _RISE:
        found.append(f"its battery rose from {before.celsius:.1f} to {now.celsius:.1f} °C")
    if now.throttling > before.throttling:
        found.append(f"Android slows it down for heat now (level {now.throttling}); let it cool")
    return [f"warning: {one}" for one in found]


def _alike(cores: Sequence[Core]) -> list[tuple[str, Core]]:
    """Cores that agree in all but their number, in words, and one of them."""
    groups: dict[tuple[object, ...], list[Core]] = {}
    for core in cores:
        groups.setdefault(core[1:], []).append(core)
    return [
        (f"core{'s'[: len(group) > 1]} {', '.join(str(core.number) for core in group)}", group[0])
        for group in groups.values()
    ]
