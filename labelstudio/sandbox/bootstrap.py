# Runs Label Studio in this process, and ends it when standard input ends: that is how it dies with its parent, however that dies.
# Usage: python -c BOOTSTRAP DATA_FOLDER_TO_REMOVE ARGUMENT...
import os
import shutil
import sys
import threading


def watch(folder):
    # Not sys.stdin: a daemon thread inside its lock makes the interpreter abort when it ends by itself.
    while os.read(0, 4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


folder = sys.argv.pop(1)
threading.Thread(target=watch, args=(folder,), daemon=True).start()

from label_studio.server import main

sys.argv[0] = "label-studio"
sys.exit(main())
