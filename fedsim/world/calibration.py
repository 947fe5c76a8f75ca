"""Which numbers describe real fleets? Measured tables, with their source, and where is judgement?

Statistics were computed from public traces; none of those traces is part of fedsim.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GIB_IN_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class ClassDefaults:
    """What is assumed of a device of some class when the file says nothing.

    Args:
        mem_available_mib: Memory that training may use.
        compute_gflops: Effective training speed, not the peak of a data sheet.
        battery_wh: None on mains.
        latency_s: One way; None for the fleet's default.
    """

    mem_available_mib: float | None
    compute_gflops: float | None
    battery_wh: float | None = None
    latency_s: float | None = None


CLASS_DEFAULTS: Mapping[str, ClassDefaults] = MappingProxyType(
    {
        "phone-low": ClassDefaults(3.0 * GIB_IN_MIB, 20, 15.4),
        "phone-mid": ClassDefaults(4.5 * GIB_IN_MIB, 60, 15.4),
        "phone-high": ClassDefaults(6.5 * GIB_IN_MIB, 100, 15.4),
        "pi-5": ClassDefaults(6.5 * GIB_IN_MIB, 45),
        "jetson-orin-nano": ClassDefaults(6.0 * GIB_IN_MIB, 1_000),
        "jetson-agx-orin": ClassDefaults(28.0 * GIB_IN_MIB, 1_900),
        "laptop": ClassDefaults(9.0 * GIB_IN_MIB, 1_500, 55.0),
        "workstation": ClassDefaults(20.0 * GIB_IN_MIB, 18_000),
    }
)
"""Effective training speed: 0.5 to 0.7 of measured 16-bit prefill rates (phones about 0.1 TFLOP/s, as
on-phone training times confirm). Usable memory of phones: 35 to 50 % of the total, a judgement."""


@dataclass(frozen=True, slots=True)
class RatioModel:
    """Downlink over uplink: its logarithm is normal, one draw per device."""

    ln_mean: float
    ln_sd: float


RATIO_MODELS: Mapping[str, RatioModel] = MappingProxyType(
    {
        "wifi": RatioModel(0.5, 0.6),
        "lte": RatioModel(1.2, 0.6),
        "5g": RatioModel(1.7, 0.6),
        "3g": RatioModel(0.7, 0.4),
        "ethernet": RatioModel(0.5, 0.4),
    }
)
"""Wi-Fi: 19 FLASH volunteers. LTE and 5G: Ookla tests in Minneapolis 2020-21. 3G: mahimahi UMTS means.
Ethernet: judgement, a home line behind a cable."""

HOURLY_ONLINE = (
    0.306, 0.331, 0.347, 0.355, 0.357, 0.347, 0.321, 0.276, 0.229, 0.200, 0.181, 0.170,
    0.160, 0.157, 0.158, 0.158, 0.162, 0.162, 0.163, 0.168, 0.175, 0.192, 0.226, 0.267,
)  # fmt: skip
"""Share of phones that charge and are connected by local hour, STUNner trace (776 phones)."""


@dataclass(frozen=True, slots=True)
class Presence:
    """How devices of a kind come and go.

    Args:
        beta: Parameters of the Beta distribution of the long-run online share.
        diurnal: Strength of the daily rhythm; 1.7 reproduces phones, 0 has none, negative inverts it.
        ln_sd: Spread of the factor on the switching rate drawn at each change.
        rate_per_h: Switching rate; smaller means longer stays.
        short_share: Share of stays and absences that are short ones: a look, a pocket, a bad contact.
        short_factor: By how much faster these end.
        short_ln_sd: Spread of the log of the factor among them.
    """

    beta: tuple[float, float]
    diurnal: float
    ln_sd: float = 0.8
    rate_per_h: float = 1.0
    short_share: float = 0.0
    short_factor: float = 1.0
    short_ln_sd: float = 0.0


PRESENCE: Mapping[str, Presence] = MappingProxyType(
    {
        "phone": Presence((1.08, 3.73), 1.68, 0.46, 0.52, 0.45, 13.0, 0.47),
        "board": Presence((6.0, 2.0), 0.3, rate_per_h=0.25),
        "laptop": Presence((2.0, 4.0), -1.0, rate_per_h=0.8),
        "workstation": Presence((4.0, 2.5), 0.8, rate_per_h=0.35),
    }
)
"""Phones: fitted to online shares, lengths of stays and absences, and the daily rhythm of the STUNner trace
after absences of up to a minute are closed. The others are judgement: boards are mostly on, laptops follow
working hours, workstations are idle at night."""


@dataclass(frozen=True, slots=True)
class NetworkFamily:
    """One kind of access network, calibrated at one-second samples.

    Args:
        ratio: Name of its down/up ratio model.
        median_mbps: Geometric mean rate outside outages.
        between_sd: Standard deviation of the log rate between traces.
        quantiles: Rate over the trace's geometric mean at 1, 5, 10, 25, 50, 75, 90, 95, 99 %.
        slow_weight: Share of the variance in the slow component.
        slow_s: Time constant of the slow component.
        fast_s: Time constant of the fast component.
        outage_s: Mean length of an outage.
        up_s: Mean time between outages.
        rtt_ms: Typical round trip.
    """

    ratio: str
    median_mbps: float
    between_sd: float
    quantiles: tuple[float, ...]
    slow_weight: float
    slow_s: float
    fast_s: float
    outage_s: float
    up_s: float
    rtt_ms: float


LEVELS = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
_CALM = (0.45, 0.60, 0.68, 0.82, 1.00, 1.21, 1.45, 1.62, 2.00)

NETWORKS: Mapping[str, NetworkFamily] = MappingProxyType(
    {
        "3g": NetworkFamily(
            "3g", 1.0, 0.49, (0.17, 0.31, 0.45, 0.77, 1.11, 1.47, 1.85, 2.10, 2.81),
            0.64, 27.0, 1.7, 4.6, 63.0, 120.0,
        ),
        "lte-poor": NetworkFamily(
            "lte", 4.1, 0.50, (0.05, 0.18, 0.31, 0.67, 1.14, 1.83, 2.66, 3.30, 4.46),
            0.69, 37.0, 1.1, 2.6, 102.0, 70.0,
        ),
        "lte": NetworkFamily(
            "lte", 25.4, 0.24, (0.09, 0.34, 0.48, 0.77, 1.09, 1.48, 1.92, 2.33, 3.18),
            0.59, 30.0, 0.9, 2.6, 374.0, 60.0,
        ),
        "lte-good": NetworkFamily(
            "lte", 26.2, 0.46, (0.07, 0.19, 0.29, 0.60, 1.10, 1.85, 2.91, 3.85, 6.30),
            0.88, 43.0, 0.7, 2.7, 278.0, 60.0,
        ),
        "5g": NetworkFamily(
            "5g", 36.7, 0.40, (0.01, 0.07, 0.21, 0.49, 1.15, 2.73, 5.10, 6.16, 8.94),
            0.53, 41.0, 1.9, 1.6, 24.0, 45.0,
        ),
        "5g-mmwave": NetworkFamily(
            "5g", 300.0, 0.16, (0.01, 0.08, 0.22, 0.41, 1.45, 2.71, 3.97, 4.86, 7.06),
            0.69, 19.0, 1.4, 2.2, 85.0, 30.0,
        ),
        "wifi": NetworkFamily("wifi", 60.0, 0.8, _CALM, 0.7, 60.0, 2.0, 3.0, 600.0, 25.0),
        "wifi-slow": NetworkFamily("wifi", 6.0, 0.5, _CALM, 0.7, 60.0, 2.0, 3.0, 300.0, 60.0),
        "ethernet": NetworkFamily("ethernet", 150.0, 0.5, _CALM, 0.7, 90.0, 3.0, 2.0, 7200.0, 12.0),
    }
)  # fmt: skip
"""3g: 26 h Norway HSDPA. lte-poor: 5.3 h NYU bus and subway. lte: 5 h Ghent. lte-good: 30 h and
5g-mmwave: 20 h Minneapolis. 5g: 4.8 h Cork, static. Quantiles, weights, time constants and outage lengths
are measured. Median, spread between traces and time between outages are fitted to mean, percentiles and
outage share over all samples: short recordings spread more than the links behind them, and those without any
outage do not tell how rare one is. Wi-Fi and Ethernet medians, spread and calm marginals are judgement;
Wi-Fi's outage share is 0.5 %."""

CALIBRATED_ON: Mapping[str, str] = MappingProxyType(
    {
        "phone": "STUNner trace, 776 phones, 2014",
        "3g": "26 h of Norway HSDPA logs, 2010-11",
        "lte-poor": "5.3 h of NYU-METS LTE, bus and subway in New York",
        "lte": "5 h of Ghent LTE logs, 2015-16",
        "lte-good": "30 h of 4G in Minneapolis (Lumos5G)",
        "5g": "4.8 h of Irish 5G (UCC), static",
        "5g-mmwave": "20 h of mmWave 5G in Minneapolis (Lumos5G)",
    }
)
"""What presences and networks were fitted to; whatever is not here is judgement."""

TAU_CORRECTION = 1.2
"""The quantile map takes a little autocorrelation away; longer time constants give it back."""
UP_CORRELATION = 0.3
"""Correlation of the fast components of both directions."""


@dataclass(frozen=True, slots=True)
class RadioPower:
    """Power of the radio while it moves data, beyond the idle phone: a base and a slope per direction."""

    base_w: float
    down_w_per_mbps: float
    up_w_per_mbps: float


RADIO_POWER: Mapping[str, RadioPower] = MappingProxyType(
    {
        "wifi": RadioPower(0.13, 0.137, 0.283),
        "3g": RadioPower(0.82, 0.122, 0.869),
        "lte": RadioPower(0.49, 0.0115, 0.0767),
        "5g": RadioPower(0.71, 0.0115, 0.0322),
        "5g-mmwave": RadioPower(2.89, 0.00173, 0.00888),
        "ethernet": RadioPower(0.3, 0.0, 0.0),
    }
)
"""LTE, 5G low band and mmWave: fit of 5,049 one-second rows of one phone of 2020 without its baseline
of 2.35 W. Wi-Fi and 3G: Huang et al., "A close examination of performance and power characteristics of 4G LTE
networks", MobiSys 2012. Ethernet: judgement, a port that is awake."""
