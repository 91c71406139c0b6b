"""Programs that the probes run inside a container: an MPI message, a window, a GPU. Each is a text for `python3 -c`.

They load the machine's own libraries by ctypes, so that nothing must be compiled or installed in an image.
"""

MPI = """
import ctypes, sys
lib = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
try:
    names = ("ompi_mpi_comm_world", "ompi_mpi_int")
    world, kind = (ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(lib, name))) for name in names)
    ignored = None
except ValueError:  # the handles of the MPICH ABI are numbers
    world, kind, ignored = ctypes.c_int(0x44000000), ctypes.c_int(0x4C000405), ctypes.c_void_p(1)
lib.MPI_Init(None, None)
rank, size, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(42)
lib.MPI_Comm_rank(world, ctypes.byref(rank))
lib.MPI_Comm_size(world, ctypes.byref(size))
if rank.value == 0:
    lib.MPI_Send(ctypes.byref(value), 1, kind, 1, 7, world)
else:
    value.value = 0
    lib.MPI_Recv(ctypes.byref(value), 1, kind, 0, 7, world, ignored)
    print(f"rank {rank.value} of {size.value} received {value.value}")
lib.MPI_Finalize()
"""

X11 = """
import ctypes, sys
x = ctypes.CDLL("libX11.so.6")
x.XOpenDisplay.restype = ctypes.c_void_p
x.XCreateSimpleWindow.restype = x.XDefaultRootWindow.restype = ctypes.c_ulong
display = x.XOpenDisplay(None)
if not display:
    sys.exit("no display can be opened")
display, number = ctypes.c_void_p(display), ctypes.c_ulong
window = x.XCreateSimpleWindow(display, number(x.XDefaultRootWindow(display)), 0, 0, 9, 9, 0, number(0), number(0))
x.XMapWindow(display, number(window))
x.XSync(display, 0)
print(f"window {window:#x} was opened")
"""

NVIDIA = """
import ctypes, sys
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
sys.exit(f"libcuda says {code}") if code else print(f"libcuda finds {count.value} GPU")
"""

SECURITY = """
import os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    open("/usr/computeops-probe", "w").close()
    os.unlink("/usr/computeops-probe")
    wrote = 1
except OSError:
    wrote = 0
print("probe", os.readlink("/proc/self/ns/user"), status["CapEff"].strip(), status["NoNewPrivs"].strip(), wrote)
"""
