/* agent-init, the command in the wheels for Linux: it blocks every signal, then becomes the interpreter that runs
   entrypoint/__main__.py. The kernel discards a signal that process 1 neither blocks nor handles, and an interpreter
   needs 10 to 20 ms until its first statement can block any. The signal mask survives exec (sigprocmask(2)). So does the
   signalfd(2), which Python has no function for: `-X signalfd=N` names it.

   With -I and -S none of the container's Python settings is in process 1; in UTF-8 mode arguments reach the agent as
   they are, whatever the locale. An installer writes no path into a binary, so package and interpreter are found from
   where this file is: see `search`. It takes no C library and no /proc.

   Compiled with -DCONTROL it is agent-initctl, which starts in the same way, and leaves the signals as they are. */

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#ifdef CONTROL
#define COMMAND "agent-initctl"
#define SCRIPT "entrypoint/ctl/__main__.py"
#else
#define COMMAND "agent-init"
#define SCRIPT "entrypoint/__main__.py"
#endif

#if defined __x86_64__
#define ENTRY "xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n"
#define CALL "syscall"
#define REGISTERS(n, a, b, c, d) R(n, "rax") R(a, "rdi") R(b, "rsi") R(c, "rdx") R(d, "r10")
#define RESULT number_
#define CLOBBERED "memory", "rcx", "r11"
#else
#define RESULT first_
#define CLOBBERED "memory"
#if defined __aarch64__
#define ENTRY "mov x0, sp\n bl start\n"
#define CALL "svc 0"
#define REGISTERS(n, a, b, c, d) R(n, "x8") R(a, "x0") R(b, "x1") R(c, "x2") R(d, "x3")
#elif defined __riscv
#define ENTRY "mv a0, sp\n call start\n"
#define CALL "ecall"
#define REGISTERS(n, a, b, c, d) R(n, "a7") R(a, "a0") R(b, "a1") R(c, "a2") R(d, "a3")
#elif defined __arm__
#define ENTRY "mov r0, sp\n bl start\n"
#define CALL "svc 0"
#define REGISTERS(n, a, b, c, d) R(n, "r7") R(a, "r0") R(b, "r1") R(c, "r2") R(d, "r3")
#endif
#endif

__asm__(".text\n.globl _start\n.type _start, %function\n_start:\n " ENTRY);

/* A system call: its result, or an error number below zero (syscall(2) has the registers). */
static long call(long number, long first, long second, long third, long fourth)
{
#define R(value, in) register long value##_ __asm__(in) = value;
    REGISTERS(number, first, second, third, fourth)
    __asm__ volatile(CALL : "+r"(number_), "+r"(first_) : "r"(second_), "r"(third_), "r"(fourth_) : CLOBBERED);
    return RESULT;
}

/* With a limit above this, nothing that process 1 opens lacks a descriptor for the signalfd. */
#define ENOUGH_DESCRIPTORS 31

/* PATH_MAX and one more: the kernel refuses a path that was cut off. Directories have a slash at the end. */
typedef char path[4097];

static char **words, **environment; /* for the interpreter */
static char **script;               /* the word that is the file it is to run */
static const char *path_list;       /* PATH */
static path package;                /* that file */
static path found, name, beside;    /* the first such file, the interpreter it was installed for, and our directory */
static path refused;                /* the first file that is there and of no use */
static long refusal;                /* the error number */
static int scripts;                 /* take interpreters that are scripts, and no others */

/* The length of the common beginning of two texts. */
static unsigned long common(const char *one, const char *other)
{
    unsigned long length = 0;
    while (one[length] && one[length] == other[length])
        length++;
    return length;
}

static int begins_with(const char *text, const char *start)
{
    return !start[common(text, start)];
}

static int is_less(const char *one, const char *other)
{
    unsigned long at = common(one, other);
    return one[at] < other[at];
}

/* Write texts one behind the other. */
static char *join(path to, const char *const *texts)
{
    unsigned long used = 0;
    for (; *texts; texts++)
        for (const char *text = *texts; *text && used < sizeof(path) - 1; text++)
            to[used++] = *text;
    to[used] = 0;
    return to;
}
#define JOIN(to, ...) join(to, (const char *const[]){__VA_ARGS__, 0})

/* The next absolute directory of PATH: returns what follows in the list, null at the end. */
static const char *next_on_path(const char *list, path directory)
{
    while (*list) {
        const char *start = list;
        unsigned long length = 0;
        for (; *list && *list != ':'; list++)
            if (length < sizeof(path) - 2)
                directory[length++] = *list;
        directory[length] = '/';
        directory[length + 1] = 0;
        list += *list == ':';
        if (*start == '/')
            return list;
    }
    return 0;
}

/* Whether there is something by that name, as far as we may know. */
static int is_there(const char *file)
{
    char first;
    long length = call(SYS_readlinkat, AT_FDCWD, (long)file, (long)&first, 1);
    return length >= 0 || length == -EINVAL; /* a link, or anything else */
}

/* Keep the first error that is more than a file that is not there: it is why nothing was found. */
static void note(const char *file, long error)
{
    if (*refused || error >= 0 || error == -ENOENT || error == -ENOTDIR || error == -ENAMETOOLONG)
        return;
    if (error == -EACCES && !is_there(file)) /* we may not look into the directory */
        return;
    JOIN(refused, file);
    refusal = -error;
}

/* Whether the file can be read; `start`: its first two bytes, if so. A pipe that is in its place does not block us. */
static int can_read(const char *file, char *start)
{
    long fd = call(SYS_openat, AT_FDCWD, (long)file, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    note(file, fd);
    if (fd < 0)
        return 0;
    call(SYS_read, fd, (long)start, 2, 0);
    call(SYS_close, fd, 0, 0, 0);
    return 1;
}

/* Become this interpreter; return if it cannot be executed. A script is the last choice: it may change the agent's
   environment, or run no Python at all (pyenv's). */
static void become(const char *directory, const char *python)
{
    static path file;
    char start[2] = {0, 0};
    int can_be_read = can_read(JOIN(file, directory, python), start);
    if ((start[0] == '#' && start[1] == '!') != scripts)
        return;
    words[0] = file;
    *script = package;
    long error = call(SYS_execve, (long)file, (long)words, (long)environment, 0);
    note(file, can_be_read && error == -ENOENT ? (scripts ? -ELIBSCN : -ELIBACC) : error);
}

/* If this directory has the package, become the interpreter of that name, beside us or on PATH. */
static void run(const char *packages, const char *directory, const char *python, int on_path)
{
    static path other;
    char start[2];
    if (!can_read(JOIN(package, packages, "entrypoint/init/spawn.py"), start)) /* not an agent's `entrypoint` */
        return;
    if (!can_read(JOIN(package, packages, SCRIPT), start)) {
        note(package, -ESTALE);
        return;
    }
    if (!*found)
        JOIN(found, package), JOIN(name, python), JOIN(beside, directory);
    if (!on_path)
        become(directory, python);
    else
        for (const char *list = path_list; (list = next_on_path(list, other));)
            become(other, python);
}

/* The next lower name of a version below `version`, such as `python3.13`, in a library folder. */
static int next_version(const char *library, path version)
{
    static char entries[32768] __attribute__((aligned(8)));
    static path best;
    long size, fd = call(SYS_openat, AT_FDCWD, (long)library, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    best[0] = 0;
    while (fd >= 0 && (size = call(SYS_getdents64, fd, (long)entries, sizeof entries, 0)) > 0)
        for (char *entry = entries; entry < entries + size; entry += *(unsigned short *)(entry + 16)) {
            char *its = entry + 19; /* struct linux_dirent64, getdents(2) */
            int is_version = begins_with(its, "python3") || begins_with(its, "pypy3");
            if (is_version && is_less(its, version) && is_less(best, its))
                JOIN(best, its);
        }
    call(SYS_close, fd, 0, 0, 0);
    return *JOIN(version, best);
}

/* The version that a directory of commands names, such as `python3.13` in `/layer/python3.13/site-packages/bin/`. */
static int named_version(const char *directory, path version)
{
    for (; *directory; directory++)
        if (begins_with(directory, "/python3.")) {
            JOIN(version, directory + 1);
            unsigned long end = 0;
            while (version[end] && version[end] != '/')
                end++;
            version[end] = 0;
            const char *below = directory + 1 + end;
            if (begins_with(below, "/site-packages/") || begins_with(below, "/dist-packages/"))
                return 1;
        }
    return 0;
}

/* Look for the package where installers put it, given the directory of the commands, and run it, with an interpreter
   beside it or on PATH. The directory may be a link, so the kernel resolves the `..`. */
static void search(const char *directory, int on_path)
{
    static const char *const LIBRARIES[] = {"../lib/", "../lib64/"};
    static path library, version, packages;
    for (int i = 0; i < 2; i++)
        for (JOIN(library, directory, LIBRARIES[i]), JOIN(version, "~"); next_version(library, version);) {
            run(JOIN(packages, library, version, "/site-packages/"), directory, version, on_path);
            run(JOIN(packages, library, version, "/dist-packages/"), directory, version, on_path); /* Debian */
        }
    JOIN(packages, directory, "../"); /* pip install --target */
    if (named_version(directory, version))
        run(packages, directory, version, on_path);
    run(packages, directory, "python3", on_path);
}

/* Take the first package that was found, with a Python of another version. */
static void run_other_version(void)
{
    if (*JOIN(package, found))
        become(beside, "python3");
}

/* Search from the directory of a file, then of the file it links to, and so on. */
static void follow(const char *file, int on_path)
{
    static path link, target;
    JOIN(link, *file == '/' ? "" : "./", file);
    for (int links = 0; links < 40; links++) { /* as path_resolution(7) */
        long length = call(SYS_readlinkat, AT_FDCWD, (long)link, (long)target, sizeof target - 1), end = 0;
        target[length > 0 ? length : 0] = 0;
        for (long at = 0; link[at]; at++)
            end = link[at] == '/' ? at + 1 : end;
        link[end] = 0;
        search(link, on_path);
        if (!*target)
            return;
        JOIN(link, *target == '/' ? "" : link, target);
    }
}

/* What an error number means here; the number itself if that is not known. */
static const char *meaning(long error)
{
    static char number[] = "error 0000";
    switch (error) {
    case EPERM:
        return "not permitted (a seccomp profile?)";
    case E2BIG:
        return "the arguments and the environment are too long";
    case ENOEXEC:
        return "not a program for this machine";
    case EAGAIN:
        return "too many processes (RLIMIT_NPROC)";
    case ENOMEM:
        return "out of memory";
    case EACCES:
        return "permission denied for this user, or by the mount";
    case ENFILE:
    case EMFILE:
        return "too many open files";
    case ESTALE:
        return "not there, but other files of the package are";
    case ELIBSCN:
        return "the interpreter that its first line names is not there";
    case ELIBACC:
        return "its loader is not there (for another C library?)";
    }
    for (int at = sizeof number - 2; at > 5; at--, error /= 10)
        number[at] = '0' + error % 10;
    return number;
}

/* An interpreter beside one of the links comes first: another installation may lie beside the link (pip install --user,
   then uv tool install). */
static void search_from(const char *file)
{
    follow(file, 0);
    follow(file, 1);
    run_other_version();
}

static void print(const char *const *texts)
{
    for (; *texts; texts++)
        call(SYS_write, 2, (long)*texts, common(*texts, *texts), 0);
}
#define PRINT(...) print((const char *const[]){COMMAND ": error: cannot start: ", __VA_ARGS__, "\n", 0})

/* `stack`: argc, argv, 0, the environment, 0, the auxiliary vector (the ABI of each machine, getauxval(3)). */
__attribute__((used, noreturn)) void start(long *stack)
{
#ifndef CONTROL
    static const unsigned long long ALL = ~(3ull << 31); /* but the C library's own (nptl(7)), which Python warns of */
    call(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&ALL, 0, sizeof ALL);
    long signals = call(SYS_signalfd4, -1, (long)&ALL, sizeof ALL, O_NONBLOCK);
#endif

    long count = stack[0];
    char **arguments = (char **)(stack + 1), **variable, *interpreters[count + 9];
    variable = environment = arguments + count + 1;
    for (; *variable; variable++)
        if (!path_list && begins_with(*variable, "PATH="))
            path_list = *variable + 5;
    if (!path_list)
        path_list = "/usr/local/bin:/usr/bin:/bin";
    const char *file = "/proc/self/exe";
    for (unsigned long *auxiliary = (unsigned long *)(variable + 1); auxiliary[0] != AT_NULL; auxiliary += 2)
        if (auxiliary[0] == AT_EXECFN)
            file = (const char *)auxiliary[1];
    words = interpreters;
    words[1] = "-I";
    words[2] = "-S";
    words[3] = "-X";
    words[4] = "utf8";
    script = words + 5;
#ifndef CONTROL
    static char option[] = "signalfd=0";
    /* It is closed if it has the number of a standard descriptor, or one of two digits, and where there are so few
       descriptors that others need it more. */
    long other = signals > 2 && signals < 10 ? call(SYS_fcntl, signals, F_DUPFD, ENOUGH_DESCRIPTORS, 0) : -1;
    if (other >= 0) {
        call(SYS_close, other, 0, 0, 0);
        option[sizeof option - 2] += signals;
        *script++ = "-X";
        *script++ = option;
    } else if (signals >= 0)
        call(SYS_close, signals, 0, 0, 0);
#endif
    script[1] = 0;
    for (long i = 1; i <= count; i++)
        script[i] = arguments[i];

    for (; scripts < 2; scripts++) {
        search_from(file);             /* as it was called: a link in a virtual environment counts */
        search_from("/proc/self/exe"); /* behind a #! line */
        static path directory;         /* it was copied: beside each command on PATH */
        for (const char *list = path_list; (list = next_on_path(list, directory));) {
            search(directory, 0);
            search(directory, 1);
            run_other_version();
        }
    }

    const char *cause = *refused ? meaning(refusal) : "", *colon = *refused ? ": " : "", *end = *refused ? "; " : "";
    if (*found)
        PRINT(refused, colon, cause, end, "no Python for ", found, ": neither ", name, " nor python3 in ", beside,
              ", and no ", name, " in PATH (", path_list, "), that can be executed; install ", name,
              ", or agent-init for a Python that is there (python3 -m pip install agent-init)");
    else
        PRINT(refused, colon, cause, end, "its Python package is not there: no lib/python3.*/site-packages/entrypoint "
              "(or dist-packages/entrypoint, or entrypoint) above the directory of ", file, ", or above one of PATH (",
              path_list, "); copy the package too, or install agent-init with pip or uv");
    for (;;)
        call(SYS_exit_group, 125, 0, 0, 0);
}
