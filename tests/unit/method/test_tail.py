import math

import pytest

from fedsim.method.bundle import ClientMemory
from fedsim.method.tail import tail_gate


def gate(memory, version, warmup=2.0, decay=0.9):
    return tail_gate(memory, version, warmup=warmup, decay=decay)


def test_the_published_table_for_a_client_never_seen():
    table = [0.393, 0.632, 0.777, 0.865, 0.918, 0.950, 0.970, 0.982, 0.989, 0.993]
    assert [gate(None, version) for version in range(10)] == pytest.approx(table, abs=6e-4)
    assert gate(None, 12) < 1.0
    assert gate(None, 13) == 1.0


def test_an_aligned_client_opens_sooner_and_an_opposed_one_not_at_all():
    assert gate(ClientMemory(1.0, 3), 3) == pytest.approx(1 - math.exp(-2 * 4 / 2.0))
    assert gate(ClientMemory(-1.0, 3), 3) == 0.0
    assert gate(ClientMemory(-1.0, 3), 3) < gate(None, 3) < gate(ClientMemory(0.5, 3), 3)


def test_the_score_is_forgotten_by_versions_since_it_was_made():
    """Dispatched again at the same version the exponent is 0; three versions later it is 3."""
    assert gate(ClientMemory(0.5, 0), 0, warmup=50.0) == pytest.approx(1 - math.exp(-1.5 / 50))
    expected = 1 - math.exp(-(1 + 0.5 * 0.9**3) * 4 / 50)
    assert gate(ClientMemory(0.5, 0), 3, warmup=50.0) == pytest.approx(expected)


def test_without_warmup_the_gate_is_open():
    assert gate(None, 0, warmup=0.0) == 1.0
