from tests.migration.conftest import console

__all__ = ["console"]
