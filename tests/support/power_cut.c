/* What one process does to the files below one directory, in order; built and preloaded by
 * power_cut.py.
 *
 * POWER_CUT_DIRECTORY  absolute; everything else is left alone
 * POWER_CUT_TRACE      where the records go; without it nothing is recorded
 *
 * A record: header (little endian, packed), then `size` bytes, then `size2` bytes.
 *
 * | field  | type | meaning                                                       |
 * |--------|------|---------------------------------------------------------------|
 * | kind   | u8   | one of `enum kind`                                            |
 * | fd     | i32  | the descriptor, -1 without one                                |
 * | number | i64  | offset, new length, open flags or ticket of a sync            |
 * | size   | u32  | of the path, the written bytes or the attribute's name        |
 * | size2  | u32  | of the second path or the attribute's value                   |
 *
 * A call and its record happen under one lock, so that the order of records is the order of
 * changes; only a sync takes its time outside of it and has a record at each end. What is written
 * to standard output is recorded too: it says what was acknowledged when.
 *
 * sync_file_range promises nothing about size and names, and is therefore no sync.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum kind {
  OPEN = 1, CLOSE, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, SYNC_FAILED,
  RENAME, UNLINK, MKDIR, RMDIR, LINK, ATTRIBUTE, OUTPUT
};

struct __attribute__((packed)) header {
  uint8_t kind;
  int32_t fd;
  int64_t number;
  uint32_t size;
  uint32_t size2;
};

enum { MAX_FILES = 65536 };

/* Which calls a fault hits. */
enum fault { FAULT_WRITE = 1, FAULT_SYNC = 2, FAULT_NAME = 4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char tracked[MAX_FILES];
static const char *directory;
static size_t directory_size;
static int trace = -1;
static int64_t tickets;

static int fault_kinds;
static int fault_after;
static int fault_count;
static int fault_error;
static int fault_hits;
static int is_full;

/* The next `after` calls of these kinds work, the `count` ones after them fail with `error`. */
void power_cut_fail(int kinds, int after, int count, int error) {
  pthread_mutex_lock(&lock);
  fault_kinds = kinds;
  fault_after = after;
  fault_count = count;
  fault_error = error;
  fault_hits = 0;
  is_full = 0;
  pthread_mutex_unlock(&lock);
}

/* How many calls failed since then. */
int power_cut_hits(void) { return fault_hits; }

/* The process kills itself before or after the `count`th call of these kinds, as SIGKILL does. */
static int death_kinds;
static int death_count;
static int is_death_after;

void power_cut_die(int kinds, int count, int is_after) {
  pthread_mutex_lock(&lock);
  death_kinds = kinds;
  death_count = count;
  is_death_after = is_after;
  pthread_mutex_unlock(&lock);
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* To be called before a call of this kind, with the lock; whether to die after it. */
static int is_last(enum fault kind) {
  if (!(death_kinds & kind) || --death_count) return 0;
  if (!is_death_after) die();
  return 1;
}

static int is_hit(enum fault kind) {
  if (!(fault_kinds & kind)) return 0;
  if (fault_after > 0) {
    fault_after--;
    return 0;
  }
  if (fault_count <= 0) return 0;
  fault_count--;
  fault_hits++;
  errno = fault_error;
  return 1;
}

__attribute__((constructor)) static void start(void) {
  directory = getenv("POWER_CUT_DIRECTORY");
  directory_size = directory ? strlen(directory) : 0;
  const char *path = getenv("POWER_CUT_TRACE");
  if (path)
    trace = (int)syscall(SYS_openat, AT_FDCWD, path,
                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void put(const void *data, size_t size) {
  const char *next = data;
  while (size) {
    ssize_t written = syscall(SYS_write, trace, next, size);
    if (written < 0) abort(); /* a trace with a hole would be believed */
    next += written;
    size -= (size_t)written;
  }
}

static void record(enum kind kind, int fd, int64_t number, const void *data, size_t size,
                   const void *data2, size_t size2) {
  if (trace < 0) return;
  int error = errno;
  struct header header = {(uint8_t)kind, fd, number, (uint32_t)size, (uint32_t)size2};
  put(&header, sizeof header);
  put(data, size);
  put(data2, size2);
  errno = error;
}

static int is_below(const char *path) {
  return directory_size && path && !strncmp(path, directory, directory_size) &&
         (path[directory_size] == '/' || !path[directory_size]);
}

static int is_tracked(int fd) { return fd >= 0 && fd < MAX_FILES && tracked[fd]; }

static int open_file(int at, const char *path, int flags, mode_t mode) {
  if (!is_below(path)) return (int)syscall(SYS_openat, at, path, flags, mode);
  pthread_mutex_lock(&lock);
  int fd = -1;
  if (!((flags & O_CREAT) && is_hit(FAULT_NAME)))
    fd = (int)syscall(SYS_openat, at, path, flags, mode);
  if (fd >= MAX_FILES) abort();
  if (fd >= 0) {
    tracked[fd] = 1;
    record(OPEN, fd, flags, path, strlen(path), NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

#define MODE_OF(flags)                           \
  mode_t mode = 0;                               \
  if ((flags) & (O_CREAT | O_TMPFILE)) {         \
    va_list arguments;                           \
    va_start(arguments, flags);                  \
    mode = (mode_t)va_arg(arguments, unsigned);  \
    va_end(arguments);                           \
  }

int open(const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_file(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_file(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
  MODE_OF(flags)
  return open_file(at, path, flags, mode);
}

int close(int fd) {
  if (!is_tracked(fd)) return (int)syscall(SYS_close, fd);
  pthread_mutex_lock(&lock);
  tracked[fd] = 0;
  record(CLOSE, fd, 0, NULL, 0, NULL, 0);
  int result = (int)syscall(SYS_close, fd);
  pthread_mutex_unlock(&lock);
  return result;
}

/* A full disk takes what still fits, and complains only about the rest. */
static int is_last_to_fit(size_t size) {
  if (!(fault_kinds & FAULT_WRITE) || fault_error != ENOSPC || fault_after || fault_count <= 0)
    return 0;
  if (is_full || size < 2) return 0;
  is_full = 1;
  fault_hits++;
  return 1;
}

/* `offset` is -1 for a write at the file's own position. */
static ssize_t write_file(int fd, const void *data, size_t size, off_t offset) {
  pthread_mutex_lock(&lock);
  ssize_t written = -1;
  int is_last_call = is_last(FAULT_WRITE);
  if (is_last_to_fit(size)) size /= 2;
  else if (is_hit(FAULT_WRITE)) size = 0;
  if (size)
    written = offset < 0 ? syscall(SYS_write, fd, data, size)
                         : syscall(SYS_pwrite64, fd, data, size, offset);
  if (written > 0) {
    if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - written;
    record(WRITE, fd, offset, data, (size_t)written, NULL, 0);
  }
  if (is_last_call) die();
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t write(int fd, const void *data, size_t size) {
  if (is_tracked(fd) && size) return write_file(fd, data, size, -1);
  if (fd != STDOUT_FILENO) return syscall(SYS_write, fd, data, size);
  pthread_mutex_lock(&lock);
  ssize_t written = syscall(SYS_write, fd, data, size);
  if (written > 0) record(OUTPUT, fd, 0, data, (size_t)written, NULL, 0);
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
  if (is_tracked(fd) && size) return write_file(fd, data, size, offset);
  return syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  return pwrite(fd, data, size, offset);
}

/* Joined into one write, which may be short like any other. */
static ssize_t write_pieces(int fd, const struct iovec *pieces, int count, off_t offset) {
  size_t size = 0;
  for (int i = 0; i < count; i++) size += pieces[i].iov_len;
  if (!size) return 0;
  char *joined = malloc(size), *end = joined;
  if (!joined) abort();
  for (int i = 0; i < count; i++) end = mempcpy(end, pieces[i].iov_base, pieces[i].iov_len);
  ssize_t written = write_file(fd, joined, size, offset);
  free(joined);
  return written;
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  if (is_tracked(fd)) return write_pieces(fd, pieces, count, -1);
  return syscall(SYS_writev, fd, pieces, count);
}

ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
  if (is_tracked(fd)) return write_pieces(fd, pieces, count, offset);
  return syscall(SYS_pwritev, fd, pieces, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
  return pwritev(fd, pieces, count, offset);
}

int ftruncate(int fd, off_t length) {
  if (!is_tracked(fd)) return (int)syscall(SYS_ftruncate, fd, length);
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_ftruncate, fd, length);
  if (!result) record(TRUNCATE, fd, length, NULL, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

static int sync_file(int fd, long call) {
  if (!is_tracked(fd)) return (int)syscall(call, fd);
  pthread_mutex_lock(&lock);
  int64_t ticket = ++tickets;
  int is_last_call = is_last(FAULT_SYNC);
  int is_failing = is_hit(FAULT_SYNC);
  record(SYNC_BEGIN, fd, ticket, NULL, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  int result = is_failing ? -1 : (int)syscall(call, fd);
  if (is_last_call) die();
  pthread_mutex_lock(&lock);
  record(result ? SYNC_FAILED : SYNC_END, fd, ticket, NULL, 0, NULL, 0);
  if (is_failing) errno = fault_error;
  pthread_mutex_unlock(&lock);
  return result;
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

/* Calls that change names. */
static int change_name(enum kind kind, long call, const char *path, const char *path2,
                       mode_t mode) {
  pthread_mutex_lock(&lock);
  int result = -1;
  int is_last_call = is_last(FAULT_NAME);
  if (kind == UNLINK || kind == RMDIR || !is_hit(FAULT_NAME)) /* a full disk can be emptied */
    result = (int)(path2 ? syscall(call, path, path2) : syscall(call, path, mode));
  if (!result) record(kind, -1, 0, path, strlen(path), path2, path2 ? strlen(path2) : 0);
  if (is_last_call) die();
  pthread_mutex_unlock(&lock);
  return result;
}

int rename(const char *path, const char *path2) {
  if (is_below(path) || is_below(path2)) return change_name(RENAME, SYS_rename, path, path2, 0);
  return (int)syscall(SYS_rename, path, path2);
}

int link(const char *path, const char *path2) {
  if (is_below(path) || is_below(path2)) return change_name(LINK, SYS_link, path, path2, 0);
  return (int)syscall(SYS_link, path, path2);
}

int unlink(const char *path) {
  if (is_below(path)) return change_name(UNLINK, SYS_unlink, path, NULL, 0);
  return (int)syscall(SYS_unlink, path);
}

int rmdir(const char *path) {
  if (is_below(path)) return change_name(RMDIR, SYS_rmdir, path, NULL, 0);
  return (int)syscall(SYS_rmdir, path);
}

int mkdir(const char *path, mode_t mode) {
  if (is_below(path)) return change_name(MKDIR, SYS_mkdir, path, NULL, mode);
  return (int)syscall(SYS_mkdir, path, mode);
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags) {
  if (!is_tracked(fd)) return (int)syscall(SYS_fsetxattr, fd, name, value, size, flags);
  pthread_mutex_lock(&lock);
  int result = (int)syscall(SYS_fsetxattr, fd, name, value, size, flags);
  if (!result) record(ATTRIBUTE, fd, 0, name, strlen(name), value, size);
  pthread_mutex_unlock(&lock);
  return result;
}
