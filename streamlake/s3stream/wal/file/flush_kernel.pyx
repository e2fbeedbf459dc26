# cython: language_level=3
"""A thread that is no Python thread: it writes a group of buffers, syncs, and says so through an eventfd.

It never needs the GIL, so it neither waits for the event loop to let go of it nor makes the loop wait. One job at a
time. Linux only: elsewhere this does not compile, and the twin (flusher.Flusher, a Python thread) does the work.

Where the bytes fall into blocks that the file has already, as in a WAL segment, they go past the page cache (O_DIRECT):
a page that is filled only to be written once costs more than all else in a group, and a sync need not look for it.
What stands before a group in its first block is written again as it was, as the page cache would do it too; behind the
group the block is filled with zeros. So nobody else may write to the file beyond the end of a group, in that block.

A large group goes out in pieces, several at a time: a disk that is given one write after the other does half of what it
can. One is copied while the system writes others (Linux's asynchronous I/O). In which order the pieces reach the disk
does not matter before the sync.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/aio_abi.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <unistd.h>

    #define STREAMLAKE_IOV_MAX 1024
    #define STREAMLAKE_BLOCK 4096
    #define STREAMLAKE_STAGE (1 << 20)
    #define STREAMLAKE_PIECE_MIN (256 << 10)
    #define STREAMLAKE_STAGES 4      /* pieces under way */
    #define STREAMLAKE_HUGE (2 << 20)  /* memory in such pages is found sooner by the system that writes from it */

    /* The file that was written last, past the page cache. `kept` is its last block as it was written, if that is not
       full: the bytes before `end`. */
    typedef struct {
        int fd;           /* -1: none, or not possible for this file */
        dev_t device;
        ino_t inode;
        int64_t end;
        int proven;       /* a group was written so */
        char* kept;       /* aligned to blocks, as the stages are */
        char* stages;
    } streamlake_direct;

    /* Writes that the system has: what it still has to write of each stage, 0 if nothing. */
    typedef struct {
        int refused;      /* this system has no asynchronous I/O, or none to spare: one write after the other */
        aio_context_t context;
        int64_t under_way[STREAMLAKE_STAGES];
        int64_t offsets[STREAMLAKE_STAGES];
    } streamlake_queue;

    typedef struct {
        pthread_t thread;
        int started;
        int request_fd;   /* the thread waits here */
        int done_fd;      /* the event loop waits here */
        int stop;
        int fd;           /* of the job; -1: none */
        int error;        /* its errno */
        struct iovec* parts;
        int64_t count;
        int64_t offset;
        int64_t written;
        int64_t direct_writes;
        streamlake_direct direct;
        streamlake_queue queue;
    } streamlake_flush;

    /* Everything, or errno. A short write goes on: what is left then fails with the true reason. */
    static int streamlake_write(streamlake_flush* job) {
        int64_t at = 0;
        while (at < job->count) {
            int64_t left = job->count - at;
            ssize_t n;
            if (job->parts[at].iov_len == 0) { at++; continue; }
            n = pwritev(job->fd, job->parts + at, left < STREAMLAKE_IOV_MAX ? (int)left : STREAMLAKE_IOV_MAX,
                        (off_t)(job->offset + job->written));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return errno;
            if (n == 0) return EIO;
            job->written += n;
            while (n > 0) {
                size_t part = job->parts[at].iov_len;
                if ((size_t)n < part) {
                    job->parts[at].iov_base = (char*)job->parts[at].iov_base + n;
                    job->parts[at].iov_len = part - (size_t)n;
                    break;
                }
                n -= (ssize_t)part;
                at++;
            }
        }
        return 0;
    }

    /* Make `direct` that of the job's file. Nonzero if all blocks of the job are there and can be written so. */
    static int streamlake_direct_open(streamlake_flush* job, int64_t size) {
        streamlake_direct* direct = &job->direct;
        struct stat file;
        char path[64];
        int64_t end = (job->offset + size + STREAMLAKE_BLOCK - 1) / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK;
        if (size == 0 || fstat(job->fd, &file) != 0 || !S_ISREG(file.st_mode) || end > (int64_t)file.st_size) return 0;
        if (direct->end >= 0 && direct->device == file.st_dev && direct->inode == file.st_ino) return direct->fd >= 0;
        if (direct->fd >= 0) close(direct->fd);
        if (direct->stages == NULL) {
            size_t size = STREAMLAKE_STAGES * STREAMLAKE_STAGE;
            direct->fd = -1;
            if (posix_memalign((void**)&direct->stages, STREAMLAKE_HUGE, size + STREAMLAKE_BLOCK) != 0) {
                direct->stages = NULL;
                return 0;
            }
            madvise(direct->stages, size, MADV_HUGEPAGE);  /* refused by systems without: no matter */
            direct->kept = direct->stages + size;
        }
        snprintf(path, sizeof path, "/proc/self/fd/%d", job->fd);
        direct->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);  /* refused by file systems that cannot */
        direct->device = file.st_dev;
        direct->inode = file.st_ino;
        direct->end = direct->proven = 0;
        return direct->fd >= 0;
    }

    /* What the first block of the job holds before it: kept from the job before, or read. */
    static int streamlake_direct_head(streamlake_flush* job) {
        streamlake_direct* direct = &job->direct;
        int64_t block = job->offset / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK;
        ssize_t n;
        if (block == job->offset || direct->end == job->offset) return 0;
        do n = pread(direct->fd, direct->kept, STREAMLAKE_BLOCK, (off_t)block); while (n < 0 && errno == EINTR);
        if (n < 0) return errno;
        return n == STREAMLAKE_BLOCK ? 0 : EIO;
    }

    static int streamlake_direct_put(int fd, const char* data, int64_t size, int64_t offset) {
        int64_t done = 0;
        while (done < size) {
            ssize_t n = pwrite(fd, data + done, (size_t)(size - done), (off_t)(offset + done));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return errno;
            if (n == 0) return EIO;
            done += n;
        }
        return 0;
    }

    /* Wait until the system has written `stage`. 0 or errno, which may be that of another stage. */
    static int streamlake_wait(streamlake_flush* job, int stage) {
        streamlake_queue* queue = &job->queue;
        int error = 0;
        while (queue->under_way[stage] > 0) {
            struct io_event event;
            long n = syscall(SYS_io_getevents, queue->context, 1L, 1L, &event, NULL);
            if (n < 0 && errno == EINTR) continue;
            if (n != 1) return n < 0 ? errno : EIO;
            int done = (int)event.data;
            int64_t size = queue->under_way[done], written = (int64_t)event.res;
            queue->under_way[done] = 0;
            int failed = 0;
            if (written < 0) failed = (int)-written;
            else if (written < size)  /* what is left fails with the true reason */
                failed = streamlake_direct_put(job->direct.fd, job->direct.stages + done * STREAMLAKE_STAGE + written,
                                               size - written, queue->offsets[done] + written);
            if (error == 0) error = failed;
        }
        return error;
    }

    /* Have `size` bytes of `stage` written, now or soon. 0 or errno. */
    static int streamlake_write_soon(streamlake_flush* job, int stage, int64_t size, int64_t offset) {
        streamlake_queue* queue = &job->queue;
        char* data = job->direct.stages + stage * STREAMLAKE_STAGE;
        if (!queue->refused && queue->context == 0)
            queue->refused = syscall(SYS_io_setup, (unsigned)STREAMLAKE_STAGES, &queue->context) != 0;
        if (!queue->refused) {
            struct iocb request;
            struct iocb* requests[1] = {&request};
            memset(&request, 0, sizeof request);
            request.aio_lio_opcode = IOCB_CMD_PWRITE;
            request.aio_fildes = (uint32_t)job->direct.fd;
            request.aio_buf = (uint64_t)(uintptr_t)data;
            request.aio_nbytes = (uint64_t)size;
            request.aio_offset = offset;
            request.aio_data = (uint64_t)stage;
            if (syscall(SYS_io_submit, queue->context, 1L, requests) == 1) {
                queue->under_way[stage] = size;
                queue->offsets[stage] = offset;
                return 0;
            }
        }
        return streamlake_direct_put(job->direct.fd, data, size, offset);
    }

    /* As streamlake_write, through the stages. EINVAL before anything was written: this file cannot be written so. */
    static int streamlake_direct_write(streamlake_flush* job, int64_t size) {
        streamlake_direct* direct = &job->direct;
        int64_t head = job->offset % STREAMLAKE_BLOCK, total = head + size, begin = 0, part = 0;
        int64_t bytes = total / STREAMLAKE_STAGES / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK + STREAMLAKE_BLOCK;
        size_t taken = 0;  /* bytes of this part that lie in pieces before */
        int stage = 0, error = streamlake_direct_head(job);
        if (bytes < STREAMLAKE_PIECE_MIN) bytes = STREAMLAKE_PIECE_MIN;
        if (bytes > STREAMLAKE_STAGE) bytes = STREAMLAKE_STAGE;
        if (direct->proven) job->written = 1;
        while (begin < total && error == 0) {
            char* data = direct->stages + stage * STREAMLAKE_STAGE;
            int64_t piece = total - begin < bytes ? total - begin : bytes, filled = begin == 0 ? head : 0;
            int64_t blocks = (piece + STREAMLAKE_BLOCK - 1) / STREAMLAKE_BLOCK * STREAMLAKE_BLOCK;
            int64_t at = job->offset - head + begin;
            if ((error = streamlake_wait(job, stage)) != 0) break;
            if (begin == 0) memcpy(data, direct->kept, (size_t)head);
            while (filled < piece) {
                size_t there = job->parts[part].iov_len - taken, wanted = (size_t)(piece - filled);
                size_t n = there < wanted ? there : wanted;
                memcpy(data + filled, (char*)job->parts[part].iov_base + taken, n);
                filled += (int64_t)n;
                taken += n;
                if (taken == job->parts[part].iov_len) { part++; taken = 0; }
            }
            memset(data + piece, 0, (size_t)(blocks - piece));
            begin += piece;
            if (begin == total) memcpy(direct->kept, data + blocks - STREAMLAKE_BLOCK, STREAMLAKE_BLOCK);
            /* The last one has nothing to be copied meanwhile. The first shows whether the file can be written so. */
            error = begin == total || !direct->proven ? streamlake_direct_put(direct->fd, data, blocks, at)
                                                      : streamlake_write_soon(job, stage, blocks, at);
            if (error == 0) job->written = direct->proven = 1;
            stage = (stage + 1) % STREAMLAKE_STAGES;
        }
        for (stage = 0; stage < STREAMLAKE_STAGES; stage++) {  /* after an error too: the stages are used again */
            int other = streamlake_wait(job, stage);
            if (error == 0) error = other;
        }
        if (error) return error;
        job->written = size;
        direct->end = job->offset + size;
        return 0;
    }

    static int streamlake_put(streamlake_flush* job) {
        int64_t size = 0;
        for (int64_t i = 0; i < job->count; i++) size += (int64_t)job->parts[i].iov_len;
        if (streamlake_direct_open(job, size)) {
            int error = streamlake_direct_write(job, size);
            if (error == 0) { job->direct_writes++; return 0; }
            job->direct.end = 0;  /* what is kept is no block of the file */
            if (error != EINVAL || job->written) return error;
            close(job->direct.fd);
            job->direct.fd = -1;
        }
        return streamlake_write(job);
    }

    static void* streamlake_flush_run(void* argument) {
        streamlake_flush* job = argument;
        uint64_t number;
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, NULL);  /* signals are the main thread's */
        for (;;) {
            ssize_t n = read(job->request_fd, &number, sizeof number);
            if (n < 0 && errno == EINTR) continue;
            if (n != sizeof number || job->stop) return NULL;
            job->error = streamlake_put(job);
            /* A failed sync leaves the file's durable content unknown: it is never tried again (fsyncgate). */
            if (job->error == 0 && fdatasync(job->fd) != 0) job->error = errno;
            close(job->fd);
            number = 1;
            while (write(job->done_fd, &number, sizeof number) < 0 && errno == EINTR) {}
        }
    }

    static int streamlake_flush_start(streamlake_flush* job) {
        int error;
        job->fd = job->direct.fd = -1;
        job->direct.end = -1;
        job->request_fd = eventfd(0, EFD_CLOEXEC);
        job->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (job->request_fd < 0 || job->done_fd < 0) return errno;
        error = pthread_create(&job->thread, NULL, streamlake_flush_run, job);
        job->started = error == 0;
        return error;
    }

    static int streamlake_flush_wake(streamlake_flush* job) {
        uint64_t one = 1;
        ssize_t n;
        do n = write(job->request_fd, &one, sizeof one); while (n < 0 && errno == EINTR);
        return n == sizeof one ? 0 : errno;
    }

    static int streamlake_flush_is_done(streamlake_flush* job) {
        uint64_t number;
        return read(job->done_fd, &number, sizeof number) == sizeof number;
    }

    static void streamlake_flush_stop(streamlake_flush* job) {
        if (job->started) {
            job->stop = 1;
            streamlake_flush_wake(job);
            pthread_join(job->thread, NULL);
            job->started = 0;
        }
        if (job->queue.context != 0) syscall(SYS_io_destroy, job->queue.context);
        if (job->request_fd >= 0) close(job->request_fd);
        if (job->done_fd >= 0) close(job->done_fd);
        if (job->direct.fd >= 0) close(job->direct.fd);
        free(job->direct.stages);
        job->direct.stages = NULL;
        job->queue.context = 0;
        job->request_fd = job->done_fd = job->direct.fd = -1;
    }

    static int streamlake_dup(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
    """
    struct iovec:
        void* iov_base
        size_t iov_len
    ctypedef struct streamlake_flush:
        int started
        int request_fd
        int done_fd
        int fd
        int error
        iovec* parts
        int64_t count
        int64_t offset
        int64_t written
        int64_t direct_writes
    int streamlake_flush_start(streamlake_flush*)
    int streamlake_flush_wake(streamlake_flush*)
    int streamlake_flush_is_done(streamlake_flush*)
    void streamlake_flush_stop(streamlake_flush*) nogil
    int streamlake_dup(int)
    int errno


cdef class FlushThread:
    """`submit`; when `done_fd` is readable, `result`; then the next. `stop` at the end. For one Python thread."""

    cdef streamlake_flush _job
    cdef Py_buffer* _views
    cdef int64_t _held

    def __cinit__(self):
        self._job.request_fd = self._job.done_fd = -1
        error = streamlake_flush_start(&self._job)
        if error:
            raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        with nogil:
            streamlake_flush_stop(&self._job)
        self._release()

    @property
    def done_fd(self):
        return self._job.done_fd

    @property
    def direct_writes(self):
        """Jobs that went past the page cache."""
        return self._job.direct_writes

    def submit(self, int fd, buffers, int64_t offset):
        """Write `buffers` one after the other at `offset` of file `fd`, then fdatasync. They must not change until it
        is done; the file may be closed before."""
        cdef int64_t count = len(buffers)
        cdef int error
        if self._views != NULL or not self._job.started:
            raise RuntimeError("the flush thread has a job, or was stopped")
        self._views = <Py_buffer*>calloc(count + 1, sizeof(Py_buffer))
        self._job.parts = <iovec*>calloc(count + 1, sizeof(iovec))
        try:
            if self._views == NULL or self._job.parts == NULL:
                raise MemoryError
            for buffer in buffers:
                PyObject_GetBuffer(buffer, &self._views[self._held], PyBUF_SIMPLE)
                self._job.parts[self._held].iov_base = self._views[self._held].buf
                self._job.parts[self._held].iov_len = <size_t>self._views[self._held].len
                self._held += 1
            self._job.count = self._held
            self._job.offset = offset
            self._job.written = 0
            # A duplicate: the number of a file that is closed meanwhile may be given to another file.
            self._job.fd = streamlake_dup(fd)
            if self._job.fd < 0:
                error = errno
                raise OSError(error, os.strerror(error))
            error = streamlake_flush_wake(&self._job)
            if error:
                os.close(self._job.fd)
                raise OSError(error, os.strerror(error))
        except BaseException:
            self._release()
            raise

    def result(self):
        """Bytes written and durable of the job that is done, or None if it is not. OSError."""
        if self._views == NULL or not streamlake_flush_is_done(&self._job):
            return None
        self._release()
        if self._job.error:
            raise OSError(self._job.error, os.strerror(self._job.error))
        return self._job.written

    def stop(self):
        """Wait for the job to end, if there is one, and end the thread. The answer of such a job is lost."""
        with nogil:
            streamlake_flush_stop(&self._job)
        self._release()

    cdef void _release(self) noexcept:
        cdef int64_t i
        if self._views != NULL:
            for i in range(self._held):
                PyBuffer_Release(&self._views[i])
        free(self._views)
        free(self._job.parts)
        self._views = NULL
        self._job.parts = NULL
        self._held = 0
