"""From the record to tables and figures; never back."""
