/* libFuzzer on the cores: starts the interpreter once, then calls a target of native_targets.pyx for each input.
 *
 * Environment: GBGW_FUZZ_TARGET names it; GBGW_FUZZ_PYTHON is the interpreter whose environment is used,
 * GBGW_FUZZ_PATH the folder of the instrumented modules, GBGW_FUZZ_ROOT the repository.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <sanitizer/allocator_interface.h>

#define FAKE_SOCKET 0x7FFF0000
#define GROWTH_BYTES (4 << 20) /* that all inputs together may leave behind: free lists, caches, interned strings */
#define WARM_INPUTS 1000

static int (*check)(const uint8_t *, Py_ssize_t);
static unsigned calls;

/* The kernel for FAKE_SOCKET: reads every byte it is given, takes all, some or none, and says why not. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    unsigned hash = 2166136261u, taken;
    if (fd != FAKE_SOCKET) {
        return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
    }
    for (unsigned i = 0; i < count; i++) {
        size_t total = 0, first = 0;
        for (size_t v = 0; v < messages[i].msg_hdr.msg_iovlen; v++) {
            const struct iovec *one = &messages[i].msg_hdr.msg_iov[v];
            const unsigned char *bytes = one->iov_base;
            for (size_t b = 0; b < one->iov_len; b += 16) {
                hash = (hash ^ bytes[b]) * 16777619u;
            }
            hash = (hash ^ bytes[one->iov_len - 1]) * 16777619u;
            if (v == 0) {
                first = one->iov_len;
            }
            if (one->iov_len > first || (one->iov_len < first && v + 1 < messages[i].msg_hdr.msg_iovlen)) {
                fprintf(stderr, "a segment of %zu bytes among those of %zu\n", one->iov_len, first);
                abort();
            }
            total += one->iov_len;
        }
        if (total > 65507 || messages[i].msg_hdr.msg_iovlen > 64) {
            fprintf(stderr, "a datagram of %zu bytes\n", total);
            abort();
        }
    }
    switch ((hash >> 8 ^ calls++) % 13) {
    case 0:
        if (calls % 2) {
            errno = EINTR;
            return -1;
        }
        break;
    case 1:
        errno = EAGAIN;
        return -1;
    case 2:
        errno = EINVAL;
        return -1;
    case 3:
        taken = 1 + hash % count;
        return (int)taken;
    case 4:
        errno = ENOBUFS;
        return -1;
    default:
        break;
    }
    return (int)count;
}

static void fail(const char *what) {
    fprintf(stderr, "gbgw-fuzz: %s\n", what);
    if (Py_IsInitialized() && PyErr_Occurred()) {
        PyErr_Print();
    }
    exit(3);
}

static const char *wanted(const char *name) {
    const char *value = getenv(name);
    if (value == NULL) {
        fprintf(stderr, "gbgw-fuzz: %s is not set; run it by python -m tests.fuzz\n", name);
        exit(3);
    }
    return value;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    const char *name = wanted("GBGW_FUZZ_TARGET");
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    if (PyStatus_Exception(PyConfig_SetBytesString(&config, &config.executable, wanted("GBGW_FUZZ_PYTHON")))
        || PyStatus_Exception(Py_InitializeFromConfig(&config))) {
        fail("the interpreter does not start");
    }
    PyConfig_Clear(&config);
    wanted("GBGW_FUZZ_PATH");
    wanted("GBGW_FUZZ_ROOT");
    if (PyRun_SimpleString("import os, sys\n"
                           "sys.path[:0] = [os.environ['GBGW_FUZZ_ROOT'], os.environ['GBGW_FUZZ_PATH']]\n"
                           "from tests.fuzz import instrumented\n"
                           "instrumented.use(os.environ['GBGW_FUZZ_PATH'])\n")) {
        fail("the instrumented cores cannot be imported");
    }
    PyObject *module = PyImport_ImportModule("native_targets");
    PyObject *capsule = module ? PyObject_CallMethod(module, "target", "s", name) : NULL;
    if (capsule == NULL) {
        fail("no such target");
    }
    check = (int (*)(const uint8_t *, Py_ssize_t))PyCapsule_GetPointer(capsule, "native_targets.target");
    return 0;
}

static int64_t cpu_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static size_t inputs;
    static int64_t grown, slowest = 500000;
    const int64_t begun = cpu_nanoseconds();
    const size_t before = __sanitizer_get_current_allocated_bytes();
    calls = 0;
    if (check(data, (Py_ssize_t)size)) {
        PyErr_Print();
        abort();
    }
    const int64_t taken = cpu_nanoseconds() - begun;
    if (taken > slowest) {
        slowest = taken;
        fprintf(stderr, "gbgw-fuzz: slowest input so far: %lld ms\n", (long long)((taken + 999999) / 1000000));
    }
    if (++inputs > WARM_INPUTS) {
        grown += (int64_t)__sanitizer_get_current_allocated_bytes() - (int64_t)before;
        if (grown > GROWTH_BYTES) {
            fprintf(stderr, "%zu inputs left %lld bytes behind\n", inputs, (long long)grown);
            abort();
        }
    }
    return 0;
}
