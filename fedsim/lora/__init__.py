"""The thing being learned: pure tensor algebra on low-rank factors."""
