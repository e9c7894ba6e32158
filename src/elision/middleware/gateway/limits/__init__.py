"""What each key may use: requests and tokens a minute, and a budget that outlives the process."""
