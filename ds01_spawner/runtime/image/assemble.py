"""Put the runtime together at /opt/ds01, out of Debian's Python and the installed packages.

Runs inside the build (see Dockerfile). What it makes depends on nothing outside /opt/ds01: the
interpreter names its own loader, and finds every library beside it, whatever the image that it is
mounted into has or lacks.
"""

import compileall
import hashlib
import py_compile
import re
import shutil
import subprocess
from pathlib import Path

BUILD = Path("/build")
RUNTIME = Path("/opt/ds01")
LIBRARIES = RUNTIME / "lib"
STDLIB = LIBRARIES / "python3.11"
PACKAGES = STDLIB / "dist-packages"
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
#: Opened by name while running, so ldd does not see them.
ALSO = ("libpthread", "libdl", "librt", "libutil", "libresolv", "libnss_files", "libnss_dns")
ALSO_CXX = ("libstdc++", "libgcc_s")
#: Files of the image that the loader would act on. Both names get as long a one that is not there:
#: a library preloaded or cached for the image's C library breaks programs that use another.
LOADER_FILES = {
    b"/etc/ld.so.preload": b"/opt/ds01/-preload",
    b"/etc/ld.so.cache": b"/opt/ds01/-cache",
}
#: Parts of the standard library that a server does not need.
UNUSED_STDLIB = ("idlelib", "lib2to3", "test", "tkinter", "turtledemo", "__pycache__")
#: Pages of the Hub; a server has only the Hub's style.
HUB_STATIC = Path("share/jupyterhub/static")
HUB_STATIC_NEEDED = ("components", "css", "favicon.ico", "images")


def main() -> None:
    """Make /opt/ds01."""
    copy_interpreter()
    copy_packages()
    copy_libraries()
    patch_loader()
    patch_interpreter()
    compile_bytecode()
    link_identical_files(RUNTIME / "kernels")


def copy_interpreter() -> None:
    """Copy Debian's Python, without Debian's hook in it."""
    (RUNTIME / "bin").mkdir(parents=True)
    shutil.copy2("/usr/bin/python3.11", RUNTIME / "bin/python3.11")
    (RUNTIME / "bin/python3").symlink_to("python3.11")
    shutil.copytree(
        "/usr/lib/python3.11", STDLIB, ignore=shutil.ignore_patterns(*UNUSED_STDLIB), symlinks=True
    )
    # A link to /etc, which belongs to the image once this is mounted.
    (STDLIB / "sitecustomize.py").unlink()
    # Ours to protect, by being read-only; the rule would reach into students' environments.
    (STDLIB / "EXTERNALLY-MANAGED").unlink(missing_ok=True)


def copy_packages() -> None:
    """Copy the server's packages and their data, the kernel packs, and pip."""
    server = BUILD / "server"
    drop_unused(server)
    shutil.copytree(server / "lib/python3.11/site-packages", PACKAGES)
    shutil.copytree(server / "share", RUNTIME / "share", symlinks=True)
    shutil.copytree(server / "etc", RUNTIME / "etc", symlinks=True)
    shutil.copytree(BUILD / "kernels", RUNTIME / "kernels")
    shutil.copytree(BUILD / "pip", RUNTIME / "pip")
    logos = RUNTIME / "share/ds01/kernel"
    shutil.copytree(RUNTIME / "kernels/cp311/ipykernel/resources", logos)


def drop_unused(server: Path) -> None:
    """Remove what is big and never used by a server."""
    static = server / HUB_STATIC
    for entry in static.iterdir():
        if entry.name not in HUB_STATIC_NEEDED:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.rmtree(static / "components")
    (static / "components").mkdir()  # jupyterhub looks for it to know its data directory
    packages = server / "lib/python3.11/site-packages"
    for pattern in ("**/*.js.map", "**/tests", "jupyterlab/staging/yarn.js"):
        for path in list(packages.glob(pattern)) + list((server / "share").glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def copy_libraries() -> None:
    """Copy the loader and every library of the system that something here uses."""
    found = {LOADER}
    modules = [path for path in RUNTIME.rglob("*.so*") if "kernels" not in path.parts]
    for binary in [RUNTIME / "bin/python3.11", *modules]:
        listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
        found |= {Path(path) for path in re.findall(r"=> (/(?:usr/)?lib\S+)", listed)}
    for directory in (Path("/lib/x86_64-linux-gnu"), Path("/usr/lib/x86_64-linux-gnu")):
        for name in (*ALSO, *ALSO_CXX):
            found |= set(directory.glob(f"{name}.so.*"))
    for library in found:
        shutil.copyfile(library, LIBRARIES / library.name)
        (LIBRARIES / library.name).chmod(0o755)


def patch_loader() -> None:
    """Make the copied loader deaf to the image's own loader files."""
    loader = LIBRARIES / LOADER.name
    content = loader.read_bytes()
    for image_file, nothing in LOADER_FILES.items():
        if content.count(image_file + b"\0") != 1:
            raise SystemExit(f"the loader does not name {image_file!r} once, as expected")
        content = content.replace(image_file, nothing)
    loader.write_bytes(content)


def patch_interpreter() -> None:
    """Bind the interpreter to the loader and the libraries beside it.

    DT_RPATH and not DT_RUNPATH: it comes before LD_LIBRARY_PATH, and it also holds for what
    extension modules need.
    """
    interpreter = RUNTIME / "bin/python3.11"
    patch = ["patchelf", "--set-interpreter", str(LIBRARIES / LOADER.name)]
    patch += ["--force-rpath", "--set-rpath", str(LIBRARIES), str(interpreter)]
    subprocess.run(patch, check=True)
    for module in PACKAGES.rglob("*.so*"):
        dynamic = subprocess.run(["readelf", "-d", module], capture_output=True, text=True).stdout
        if "(RUNPATH)" in dynamic:
            raise SystemExit(f"{module} has a RUNPATH and would look for libraries in the image")


def compile_bytecode() -> None:
    """Compile once here what nobody can write beside a read-only source later."""
    for directory in (STDLIB, RUNTIME / "kernels/cp311", RUNTIME / "pip"):
        compileall.compile_dir(
            directory,
            quiet=2,
            workers=0,
            # Without a look at the source's time, which a copy into a volume may change.
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def link_identical_files(directory: Path) -> None:
    """Keep files with the same content once: the packs differ in little but compiled modules."""
    first: dict[tuple[int, bytes], Path] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        key = (path.stat().st_mode, hashlib.sha256(path.read_bytes()).digest())
        if key in first:
            path.unlink()
            path.hardlink_to(first[key])
        else:
            first[key] = path


if __name__ == "__main__":
    main()
