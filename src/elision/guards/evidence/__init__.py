"""What an operator and an auditor are shown: previews, impacts, self-tests, receipts."""
