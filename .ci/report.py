"""Reads what `go test -json` writes: tells each package as it ends, then what failed with its output, what was skipped and
why, the slowest parts, and each data race: its report stands in the output of whichever test ran just then.

Its status is 1 where something failed or where nothing ran: a test command that tests nothing must not pass.
"""

import collections
import json
import re
import sys

SLOWEST = 15
RACE = re.compile(r"^ *WARNING: DATA RACE\n.*?(?:^ *={18}\n|\Z)", re.MULTILINE | re.DOTALL)  # indented where a test tells what a daemon said


def main() -> int:
    output = collections.defaultdict(list)
    ended = {"pass": {}, "fail": {}, "skip": {}}  # action -> (package, test or "") -> seconds
    for line in sys.stdin:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            print(line, end="", flush=True)  # not an event: the go command's own words
            continue
        action = event["Action"].removeprefix("build-")
        # A build that fails has an import path in place of a package.
        key = (event.get("Package") or event.get("ImportPath", ""), event.get("Test", ""))
        if action == "output":
            output[key].append(event["Output"])
        elif action in ended:
            ended[action][key] = event.get("Elapsed", 0)
            if not key[1]:
                print(f"{action} {key[0]} {event.get('Elapsed', 0):.1f} s", flush=True)

    for key in ended["fail"]:
        print(f"--- FAIL: {' '.join(key)}")
        print("".join(output[key]))
    for key in ended["skip"]:
        if key[1]:
            print(f"--- SKIP: {' '.join(key)}: {''.join(output[key]).strip()}")

    packages = {key[0]: seconds for action in ("pass", "fail") for key, seconds in ended[action].items() if not key[1]}
    tests = {key: seconds for action in ("pass", "fail") for key, seconds in ended[action].items() if key[1]}
    print("\nslowest packages:")
    for name, seconds in sorted(packages.items(), key=lambda item: -item[1])[:SLOWEST]:
        print(f"  {seconds:7.1f} s  {name}")
    print("slowest tests:")
    for (name, test), seconds in sorted(tests.items(), key=lambda item: -item[1])[:SLOWEST]:
        print(f"  {seconds:7.1f} s  {name} {test}")

    # Last, where nobody overlooks what failed every test that was running.
    for key, lines in output.items():
        for race in RACE.findall("".join(lines)):
            print(f"\n{key[0]}: {race}", end="")

    counts = {action: sum(1 for key in keys if key[1]) for action, keys in ended.items()}
    print(f"\n{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped, in {len(packages)} packages")
    if counts["pass"] == 0:
        print("no test ran", file=sys.stderr)
    return 1 if ended["fail"] or counts["pass"] == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
