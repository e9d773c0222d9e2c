"""Beat's memory of its last tick, in the folder that BEAT_SCHEDULE_FILE names."""

from pathlib import Path
from tempfile import TemporaryFile

from celery.beat import PersistentScheduler


class Scheduler(PersistentScheduler):
    """Celery's own opens its file before it tells anybody that beat begins (`beat_init`): by then the folder must be there."""

    def setup_schedule(self) -> None:
        folder = Path(self.schedule_filename).absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SystemExit(
                f"BEAT_SCHEDULE_FILE: {folder} cannot be written ({error.strerror}): name a file in a folder that beat may write."
            ) from None
        super().setup_schedule()
