"""Builder of the compiled error diffusion, run by setuptools (see setup.py)."""

from pathlib import Path

from cffi import FFI

_SOURCE = Path(__file__).with_name("_dither.c")

ffibuilder = FFI()
ffibuilder.cdef("""
    typedef struct diffuser diffuser;
    int have_avx2(void);
    diffuser *diffuser_new(size_t width, int avx2);
    diffuser *diffuser_new_faithful(size_t width, int avx2);
    void diffuser_free(diffuser *);
    void diffuser_feed(diffuser *, const uint8_t *gray, size_t stride, size_t rows,
                       uint8_t *out, int packed);
""")
ffibuilder.set_source(
    # Beside the package, not in it: run from a checkout, `python -m bwpool` takes the
    # checkout's package, and should find what pip has built all the same.
    "_bwpool_dither",
    # Part of the generated file rather than a source of its own, so that the compiler
    # checks the declarations above; the line directive keeps its messages readable.
    f'#line 1 "{_SOURCE.name}"\n{_SOURCE.read_text(encoding="utf-8")}',
    # No -march: the AVX2 code is chosen when the program runs.
    extra_compile_args=["-O3"],
    # Without a compiler or Python.h the build goes on, and dither.py does without.
    optional=True,
    # This brings the C file into the sdist; relative to setup.py.
    depends=["bwpool/convert/_dither.c"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
