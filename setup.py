"""What pyproject.toml cannot say: kernels that must be there, and files beside the package that a wheel carries."""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

REQUIRE = "STREAMLAKE_REQUIRE_KERNELS"
SHARED = ("catalogs", "docs/guides", "notebooks", "schemas")  # streamlake/share in the wheel: streamlake/core/share.py


class BuildKernels(build_ext):
    """Kernels are optional, as each has a twin in Python; a release must have them all, and says so by REQUIRE."""

    def build_extensions(self) -> None:
        required = os.environ.get(REQUIRE, "") not in ("", "0")
        for extension in self.extensions:
            extension.optional = extension.optional and not required
        try:
            super().build_extensions()
        except Exception as error:
            if not required:
                raise
            raise CompileError(f"{REQUIRE} is set, and a kernel cannot be compiled: {error}") from error
        # Those that are left out for want of a compiler that works.
        missing = [e.name for e in self.extensions if not Path(self.get_ext_fullpath(e.name)).exists()]
        if missing:
            print(
                f"WARNING: StreamLake is built without {', '.join(missing)}: the C compiler failed (see above). It "
                f"works, slower. {REQUIRE}=1 makes this an error.",
                file=sys.stderr,
            )


class BuildWithShared(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in SHARED:
                shutil.copytree(name, Path(self.build_lib, "streamlake", "share", name), dirs_exist_ok=True)


setup(cmdclass={"build_ext": BuildKernels, "build_py": BuildWithShared})
