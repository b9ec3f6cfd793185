"""The ports that more than one package uses, each beside its adapters."""
