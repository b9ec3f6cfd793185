"""What a PaaS is, without saying how anything is reached."""
