// A library for LD_PRELOAD that makes chosen system calls on chosen files fail, for the fault tests.
//   INJECT = "call:path:skip:times:errno;..."  Fail `times` calls (-1: all) of `call` on files whose path contains
//            `path`, after letting `skip` of them through. errno 0 makes reads and writes short (one byte) instead;
//            -N sends signal N to the process just before the call, -1000 - N after half of what it would write.
//   INJECT_CLOCK = seconds  CLOCK_REALTIME jumps back and forth by so much on every call.
// Calls: read (pread, preadv), open, and those that change something: write, fsync, rename, truncate, unlink (of files
// and folders), create (open with O_CREAT), mkdir; `change` stands for all of these.
// A program that has loaded it may change the rules as it runs: inject(text), inject_left(rule) calls still let
// through.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { TORN = 1000 };

struct rule {
    char call[16], path[256];
    long skip, times;
    int error;
};

static struct rule rules[8];
static int rule_count = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void read_rules(const char* text) {
    rule_count = 0;
    if (text == NULL) return;
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", text);
    char* rest = copy;
    for (char* part; rule_count < 8 && (part = strsep(&rest, ";")) != NULL;) {
        struct rule* r = &rules[rule_count];
        if (sscanf(part, "%15[^:]:%255[^:]:%ld:%ld:%d", r->call, r->path, &r->skip, &r->times, &r->error) == 5)
            ++rule_count;
    }
}

// Take these rules instead of those before.
void inject(const char* text) {
    pthread_mutex_lock(&lock);
    read_rules(text);
    pthread_mutex_unlock(&lock);
}

// How many calls a rule would still let through.
long inject_left(int index) {
    pthread_mutex_lock(&lock);
    const long left = index < rule_count ? rules[index].skip : -1;
    pthread_mutex_unlock(&lock);
    return left;
}

static int names(const struct rule* r, const char* call) {
    if (strcmp(r->call, call) == 0) return 1;
    return strcmp(r->call, "change") == 0 && strcmp(call, "read") != 0 && strcmp(call, "open") != 0;
}

// The rule that strikes now, or NULL. A signal is sent here, and the call then goes on if there is still a process.
static const struct rule* strike(const char* call, const char* path) {
    const struct rule* found = NULL;
    pthread_mutex_lock(&lock);
    if (rule_count < 0) read_rules(getenv("INJECT"));
    for (int i = 0; i < rule_count && found == NULL; ++i) {
        struct rule* r = &rules[i];
        if (!names(r, call) || strstr(path, r->path) == NULL) continue;
        if (r->skip > 0) {
            --r->skip;
        } else if (r->times != 0) {
            if (r->times > 0) --r->times;
            found = r;
        }
    }
    pthread_mutex_unlock(&lock);
    if (found != NULL && found->error < 0 && (found->error > -TORN || strcmp(call, "write") != 0)) {
        kill(getpid(), found->error > -TORN ? -found->error : -TORN - found->error);
        return NULL;
    }
    return found;
}

static const struct rule* strike_descriptor(const char* call, int descriptor) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return NULL;
    path[length] = '\0';
    return strike(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(rule)             \
    do {                       \
        errno = (rule)->error; \
        return -1;             \
    } while (0)

#define DEFINE_PREADV(name)                                                            \
    ssize_t name(int descriptor, const struct iovec* parts, int count, off_t offset) { \
        const struct rule* r = strike_descriptor("read", descriptor);                  \
        if (r == NULL) return REAL(name)(descriptor, parts, count, offset);            \
        if (r->error != 0) FAIL(r);                                                    \
        const struct iovec one = {parts[0].iov_base, parts[0].iov_len < 1 ? 0 : 1};    \
        return REAL(name)(descriptor, &one, 1, offset);                                \
    }
DEFINE_PREADV(preadv)
DEFINE_PREADV(preadv64)

#define DEFINE_PREADV2(name)                                                                      \
    ssize_t name(int descriptor, const struct iovec* parts, int count, off_t offset, int flags) { \
        const struct rule* r = strike_descriptor("read", descriptor);                             \
        if (r == NULL) return REAL(name)(descriptor, parts, count, offset, flags);                \
        if (r->error != 0) FAIL(r);                                                               \
        const struct iovec one = {parts[0].iov_base, parts[0].iov_len < 1 ? 0 : 1};               \
        return REAL(name)(descriptor, &one, 1, offset, flags);                                    \
    }
DEFINE_PREADV2(preadv2)
DEFINE_PREADV2(preadv64v2)

#define DEFINE_PREAD(name)                                                   \
    ssize_t name(int descriptor, void* buffer, size_t count, off_t offset) { \
        const struct rule* r = strike_descriptor("read", descriptor);        \
        if (r == NULL) return REAL(name)(descriptor, buffer, count, offset); \
        if (r->error != 0) FAIL(r);                                          \
        return REAL(name)(descriptor, buffer, count < 1 ? 0 : 1, offset);    \
    }
DEFINE_PREAD(pread)
DEFINE_PREAD(pread64)

ssize_t write(int descriptor, const void* buffer, size_t count) {
    const struct rule* r = strike_descriptor("write", descriptor);
    if (r == NULL) return REAL(write)(descriptor, buffer, count);
    if (r->error > 0) FAIL(r);
    if (r->error == 0) return REAL(write)(descriptor, buffer, count < 1 ? 0 : 1);
    const ssize_t written = REAL(write)(descriptor, buffer, count / 2);
    kill(getpid(), -TORN - r->error);
    return written;
}

int fsync(int descriptor) {
    const struct rule* r = strike_descriptor("fsync", descriptor);
    if (r != NULL) FAIL(r);
    return REAL(fsync)(descriptor);
}

int fdatasync(int descriptor) {
    const struct rule* r = strike_descriptor("fsync", descriptor);
    if (r != NULL) FAIL(r);
    return REAL(fdatasync)(descriptor);
}

int rename(const char* from, const char* to) {
    const struct rule* r = strike("rename", to);
    if (r != NULL) FAIL(r);
    return REAL(rename)(from, to);
}

#define DEFINE_TRUNCATE(name)                                             \
    int name(int descriptor, off_t length) {                              \
        const struct rule* r = strike_descriptor("truncate", descriptor); \
        if (r != NULL) FAIL(r);                                           \
        return REAL(name)(descriptor, length);                            \
    }
DEFINE_TRUNCATE(ftruncate)
DEFINE_TRUNCATE(ftruncate64)

#define DEFINE_REMOVE(name)                            \
    int name(const char* path) {                       \
        const struct rule* r = strike("unlink", path); \
        if (r != NULL) FAIL(r);                        \
        return REAL(name)(path);                       \
    }
DEFINE_REMOVE(unlink)
DEFINE_REMOVE(rmdir)

int unlinkat(int folder, const char* path, int flags) {
    const struct rule* r = path[0] == '/' ? strike("unlink", path) : strike_descriptor("unlink", folder);
    if (r != NULL) FAIL(r);
    return REAL(unlinkat)(folder, path, flags);
}

int mkdir(const char* path, mode_t mode) {
    const struct rule* r = strike("mkdir", path);
    if (r != NULL) FAIL(r);
    return REAL(mkdir)(path, mode);
}

#define DEFINE_OPEN(name)                                                    \
    int name(const char* path, int flags, ...) {                             \
        va_list rest;                                                        \
        va_start(rest, flags);                                               \
        const mode_t mode = (mode_t)va_arg(rest, int);                       \
        va_end(rest);                                                        \
        const struct rule* r = strike("open", path);                         \
        if (r == NULL && (flags & O_CREAT) != 0) r = strike("create", path); \
        if (r != NULL) FAIL(r);                                              \
        return REAL(name)(path, flags, mode);                                \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

int clock_gettime(clockid_t clock, struct timespec* now) {
    static long calls = 0;
    const int result = REAL(clock_gettime)(clock, now);
    const char* jump = getenv("INJECT_CLOCK");
    if (jump != NULL && clock == CLOCK_REALTIME) now->tv_sec += (calls++ % 2 == 0 ? 1 : -1) * atol(jump);
    return result;
}
