"""Currencies of ISO 4217 in circulation, by the number of decimals of their amounts.

Funds, metals and test codes are left out: nobody is billed in them.
"""

from __future__ import annotations

from collections.abc import Mapping

_BY_MINOR_UNITS: Mapping[int, str] = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx vnd vuv xaf xof xpf",
    2: (
        "aed afn all amd aoa ars aud awg azn bam bbd bdt bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf "
        "cny cop crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gtq gyd hkd hnl "
        "htg huf idr ils inr irr jmd kes kgs khr kpw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt "
        "mop mru mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub "
        "sar sbd scr sdg sek sgd shp sle sos srd ssp stn svc syp szl thb tjs tmt top try ttd twd tzs uah "
        "usd uyu uzs ves wst xcd xcg yer zar zmw zwg"
    ),
    3: "bhd iqd jod kwd lyd omr tnd",
}

MINOR_UNITS: Mapping[str, int] = {
    code: decimals for decimals, codes in _BY_MINOR_UNITS.items() for code in codes.split()
}
"""Decimals of an amount by the code in lower case: `MINOR_UNITS["usd"] == 2`."""


def codes_with(decimals: int) -> list[str]:
    """The codes whose amounts have that many decimals, sorted."""
    return sorted(code for code, units in MINOR_UNITS.items() if units == decimals)
