"""Readers of published trace formats. Each yields canonical rows; `writer` lays them down as CSV."""
