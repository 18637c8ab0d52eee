"""SQLite against the model of a broker: random histories, each on a file of its own."""

from pathlib import Path
from tempfile import TemporaryDirectory

from chicory.testing import BrokerModel
from chicory_sqlite import File, SqliteBroker


class SqliteModel(BrokerModel):
    def new_place(self):
        folder = Path(self.resources.enter_context(TemporaryDirectory()))
        file = File(path=folder / "chicory.db", durability="normal", lock_seconds=5.0, clock=self.clock)
        return lambda: SqliteBroker(file)


def test_sqlite_keeps_the_contract_in_any_history():
    SqliteModel.check()
