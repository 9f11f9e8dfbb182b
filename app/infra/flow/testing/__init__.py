"""What people who extend the engine test their own parts with. Standard library only; any runner of test methods will do."""

from .store_contract import StoreContract

__all__ = ["StoreContract"]
