"""The quick start in the README runs and prints what the README says."""

import re
import subprocess
import sys
import unittest

from vectors import REPOSITORY


class Readme(unittest.TestCase):
    def test_quick_start(self):
        text = (REPOSITORY / "bindings/python/README.md").read_text()
        program = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
        wanted = re.search(r"```text\n(.*?)```", text, re.DOTALL).group(1)
        self.assertLessEqual(len(program.splitlines()), 10)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
        self.assertEqual((done.returncode, done.stdout), (0, wanted), done.stderr)


if __name__ == "__main__":
    unittest.main()
