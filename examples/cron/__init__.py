"""A nightly job under cron or systemd: the script, the crontab line, the unit files."""
