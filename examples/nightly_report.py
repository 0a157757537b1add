"""A report every night, by a schedule that the code declares.

    rota dev --app nightly_report   # a node; the schedule is there as soon as it has started
    rota schedule list
    python nightly_report.py        # in another terminal: runs it now, and prints it

It reads what is really there: the files of Python's own standard library.
"""

import sysconfig
from collections import Counter
from pathlib import Path

import rota


@rota.task(cron="0 3 * * 1-5", tz="Europe/Berlin", overlap="skip", keep_result=7 * 86_400)
def report(top: int = 5) -> list[tuple[str, int]]:
    """The packages with the most lines of code."""
    root, lines = Path(sysconfig.get_path("stdlib")), Counter[str]()
    paths = [path for path in root.rglob("*.py") if "site-packages" not in path.parts]
    for number, path in enumerate(paths, 1):
        lines[path.relative_to(root).parts[0].removesuffix(".py")] += path.read_bytes().count(b"\n")
        rota.progress(number, len(paths))
    return lines.most_common(top)


def main() -> None:
    with rota.Client() as client:
        schedule = client.schedules.get("nightly_report:report")
        print(f"{schedule.name}: {schedule.when}")
        job = client.handle(client.schedules.run_now(schedule.name))
        for package, count in job.result(timeout=60):
            print(f"{count:8,} lines in {package}")


if __name__ == "__main__":
    main()
