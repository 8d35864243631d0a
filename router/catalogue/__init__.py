"""What was made through the API, and what of the file it shows: functions, their versions and aliases, mappings."""
