"""Which published formats are known, who published them, under what licence, and which choices they heed?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedsim.world.importers import (
    fedscale,
    flash,
    ghent,
    hsdpa,
    lumos5g,
    mahimahi,
    nyu_mets,
    oboe,
    pensieve,
    stunner,
    ucc5g,
)
from fedsim.world.importers import head as looks
from fedsim.world.importers.head import Head
from fedsim.world.importers.rows import Choices, Inputs, Items

_ASK = "none stated; ask the authors before passing it on"


@dataclass(frozen=True, slots=True)
class Published:
    """One published format.

    Args:
        read: Yields canonical rows.
        fits: Whether the beginning of a file looks like it.
        source: For the sidecar: what it is and where it was described.
        licence: For the sidecar: what its publisher says.
        choices: Fields of `Choices` that have an effect.
    """

    read: Callable[[Inputs, Choices], Items]
    fits: Callable[[Head], bool]
    source: str
    licence: str
    choices: frozenset[str] = frozenset()


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "stunner": Published(
            stunner.read,
            looks.is_stunner,
            "STUNner smartphone availability 2014 (Berta, Bilicki, Jelasity, P2P 2014)",
            _ASK,
            frozenset({"merge_gap_s"}),
        ),
        "fedscale": Published(
            fedscale.read,
            looks.is_fedscale,
            "FedScale client traces (Lai et al., ICML 2022), derived from FLASH, AI Benchmark and MobiPerf",
            "Apache-2.0",
            frozenset({"merge_gap_s"}),
        ),
        "flash": Published(
            flash.read,
            looks.is_flash,
            "FLASH smartphone states and Wi-Fi speeds 2020 (Yang et al., WWW 2021)",
            "BSD-2-Clause",
            frozenset({"bin_s", "seed"}),
        ),
        "mahimahi": Published(
            mahimahi.read,
            looks.is_mahimahi,
            "mahimahi cellular traces (Netravali et al., USENIX ATC 2015)",
            "GPL-3.0-or-later",
            frozenset({"bin_s"}),
        ),
        "hsdpa": Published(
            hsdpa.read,
            looks.is_hsdpa,
            "Norway HSDPA 2010-11, downlink (Riiser et al., MMSys 2013); gaps split",
            _ASK,
        ),
        "ghent": Published(
            ghent.read,
            looks.is_ghent,
            "Ghent LTE 2015-16, downlink (van der Hooft et al., IEEE Comm. Letters 2016); gaps split",
            _ASK,
        ),
        "ucc5g": Published(
            ucc5g.read,
            looks.is_ucc5g,
            "UCC Irish 5G 2019-20, downlink (Raca et al., MMSys 2020); gaps split",
            "GPL-3.0",
        ),
        "nyu_mets": Published(
            nyu_mets.read,
            looks.is_nyu_mets,
            "NYU-METS New York LTE, downlink (Mei et al., PAM 2019)",
            "ODbL-1.0 and DbCL-1.0",
        ),
        "lumos5g": Published(
            lumos5g.read,
            looks.is_lumos5g,
            "Lumos5G Minneapolis mmWave 5G and 4G, downlink (Narayanan et al., IMC 2020 and SIGCOMM 2021)",
            _ASK,
        ),
        "pensieve": Published(
            pensieve.read,
            looks.is_pensieve,
            "FCC broadband 2016 cut (Mao et al., SIGCOMM 2017) or Puffer (Yan et al., NSDI 2020)",
            "FCC: US government work; Puffer: its own terms",
        ),
        "oboe": Published(
            oboe.read,
            looks.is_oboe,
            "Oboe video sessions, rate per chunk (Akhtar et al., SIGCOMM 2018)",
            _ASK,
        ),
    }
)
