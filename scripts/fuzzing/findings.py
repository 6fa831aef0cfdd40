"""What a campaign has found: the array did something that it must not, whatever its peers do."""


class Finding(Exception):
    """One sentence. The campaign fails; it goes on until its end all the same, since the next one may say more."""
