"""Builder of the compiled G4 encoder, run by setuptools (see setup.py)."""

from pathlib import Path

from cffi import FFI

_SOURCE = Path(__file__).with_name("_g4.c")

ffibuilder = FFI()
ffibuilder.cdef("""
    size_t g4_bound(uint32_t width, size_t rows);
    size_t g4_encode(const uint8_t *bits, uint32_t width, size_t rows, uint8_t *out);
""")
ffibuilder.set_source(
    # Beside the package, not in it: run from a checkout, `python -m bwpool` takes the
    # checkout's package, and should find what pip has built all the same.
    "_bwpool_g4",
    # As in _dither_build.py.
    f'#line 1 "{_SOURCE.name}"\n{_SOURCE.read_text(encoding="utf-8")}',
    extra_compile_args=["-O3"],
    # Without a compiler or Python.h the build goes on, and libtiff does the work.
    optional=True,
    # This brings the C file into the sdist; relative to setup.py.
    depends=["bwpool/convert/_g4.c"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
