/* agent-init, the command in the wheels for Linux: it blocks every signal, then becomes the interpreter that runs
   entrypoint/__main__.py. The kernel discards a signal that process 1 neither blocks nor handles, and an interpreter
   needs 10 to 20 ms until its first statement can block any. The signal mask survives exec (sigprocmask(2)).

   With -I and -S none of the container's Python settings is in process 1. An installer writes no path into a binary,
   so package and interpreter are found from where this file is: see `search`. It takes no C library and no /proc. */

#include <elf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>

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

typedef char path[4096]; /* PATH_MAX */

static char **words, **environment; /* for the interpreter */
static path package;                /* the file that it is to run */
static path found, name, beside;    /* the first such file, the interpreter it was installed for, and our directory */

static int begins_with(const char *text, const char *start)
{
    while (*start && *text == *start)
        text++, start++;
    return !*start;
}

static int is_less(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one < *other;
}

/* Write texts, up to a null pointer, one behind the other; nothing if they do not fit. */
static char *join(path to, ...)
{
    unsigned long used = 0;
    va_list texts;
    va_start(texts, to);
    for (const char *text; (text = va_arg(texts, const char *));)
        while (*text && used < sizeof(path))
            to[used++] = *text++;
    va_end(texts);
    to[used < sizeof(path) ? used : 0] = 0;
    return to;
}
#define JOIN(...) join(__VA_ARGS__, (char *)0)

static int read_link(const char *link, path target)
{
    long length = call(SYS_readlinkat, AT_FDCWD, (long)link, (long)target, sizeof(path) - 1);
    target[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* The directory of a file: "" for the root, "." if there is no slash. Returns the last letter of the path. */
static char directory_of(path file, path directory)
{
    long at = 0, end = -1;
    for (; file[at]; at++)
        end = (directory[at] = file[at]) == '/' ? at : end;
    directory[end < 0 ? 0 : end] = 0;
    if (end < 0)
        JOIN(directory, ".");
    return at ? file[at - 1] : 0;
}

/* The directory above one. It ends in ".." only where the one is a link: Python must resolve that, not shorten it. */
static void above(path directory, path top)
{
    static path target;
    if (!*directory)
        *top = 0;
    else if (directory_of(directory, top) == '.' || read_link(directory, target))
        JOIN(top, directory, "/..");
}

static const char *search_path(void)
{
    for (char **variable = environment; *variable; variable++)
        if (begins_with(*variable, "PATH="))
            return *variable + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

/* The next absolute directory of PATH: returns what is behind it, null at the end. */
static const char *next_on_path(const char *list, path directory)
{
    while (*list) {
        const char *start = list;
        unsigned long length = 0;
        for (; *list && *list != ':'; list++)
            if (length < sizeof(path) - 1)
                directory[length++] = *list;
        directory[length] = 0;
        list += *list == ':';
        if (*start == '/')
            return list;
    }
    return 0;
}

/* Become this interpreter; return if there is none that can be executed. */
static void become(const char *directory, const char *python)
{
    static path file;
    words[0] = JOIN(file, directory, "/", python);
    words[3] = package;
    call(SYS_execve, (long)file, (long)words, (long)environment, 0);
}

static void become_on_path(const char *python)
{
    static path directory;
    for (const char *list = search_path(); (list = next_on_path(list, directory));)
        become(directory, python);
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
            int is_version = begins_with(its, "python3.") || begins_with(its, "pypy3.");
            if (is_version && is_less(its, version) && is_less(best, its))
                JOIN(best, its);
        }
    call(SYS_close, fd, 0, 0, 0);
    return *JOIN(version, best);
}

/* Whether `package` exists. The first that does is remembered, for the case that nothing can run it. */
static int is_package(const char *directory, const char *python)
{
    if (call(SYS_faccessat, AT_FDCWD, (long)package, 0, 0))
        return 0;
    if (!*found)
        JOIN(found, package), JOIN(name, python), JOIN(beside, directory);
    return 1;
}

/* Look for the package where installers put it, given the directory of the commands, and run it: with the interpreter
   of its version beside us or, failing that, on PATH, or with another one beside us. */
static void search(path directory)
{
    static const char *const LIBRARIES[] = {"/lib", "/lib64"}, *const KINDS[] = {"site", "dist" /* Debian */};
    static path top, library, version;
    above(directory, top);
    for (int attempt = 0; attempt < 3; attempt++)
        for (int i = 0; i < 2; i++)
            for (JOIN(library, top, LIBRARIES[i]), JOIN(version, "~"); next_version(library, version);)
                for (int j = 0; j < 2; j++) {
                    JOIN(package, library, "/", version, "/", KINDS[j], "-packages/entrypoint/__main__.py");
                    if (!is_package(directory, version))
                        continue;
                    if (attempt == 0)
                        become(directory, version);
                    else if (attempt == 1)
                        become_on_path(version);
                    else
                        become(directory, "python3"), become(directory, "python");
                }
    JOIN(package, top, "/entrypoint/__main__.py"); /* pip install --target */
    if (is_package(directory, "python3")) {
        become(directory, "python3"), become(directory, "python");
        become_on_path("python3"), become_on_path("python");
    }
}

/* Search from the directory of a file, then of the file it links to, and so on. */
static void search_from(const char *file)
{
    static path link, directory, target;
    JOIN(link, file);
    for (int links = 0; links < 40; links++) { /* as path_resolution(7) */
        directory_of(link, directory);
        search(directory);
        if (!read_link(link, target))
            return;
        if (*target == '/')
            JOIN(link, target);
        else
            JOIN(link, directory, "/", target);
    }
}

static void print(const char *text, ...)
{
    va_list texts;
    va_start(texts, text);
    for (; text; text = va_arg(texts, const char *)) {
        unsigned long length = 0;
        while (text[length])
            length++;
        call(SYS_write, 2, (long)text, length, 0);
    }
    va_end(texts);
}

/* `stack`: argc, argv, 0, the environment, 0, the auxiliary vector (the ABI of each machine, getauxval(3)). */
__attribute__((used, noreturn)) void start(long *stack)
{
    static const unsigned long long ALL = -1;
    call(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, (long)&ALL, 0, sizeof ALL);

    long count = stack[0], *auxiliary;
    char **arguments = (char **)(stack + 1), *interpreters[count + 5];
    const char *file = "/proc/self/exe";
    environment = arguments + count + 1;
    for (auxiliary = (long *)environment; *auxiliary++;)
        continue;
    for (; auxiliary[0] != AT_NULL; auxiliary += 2)
        if (auxiliary[0] == AT_EXECFN)
            file = (const char *)auxiliary[1];
    words = interpreters;
    words[1] = "-I";
    words[2] = "-S";
    words[4] = 0;
    for (long i = 1; i <= count; i++)
        words[3 + i] = arguments[i];

    search_from(file);             /* as it was called: a link in a virtual environment counts */
    search_from("/proc/self/exe"); /* behind a #! line */
    static path directory;         /* it was copied: beside each command on PATH */
    for (const char *list = search_path(); (list = next_on_path(list, directory));)
        search(directory);

    if (*found)
        print("agent-init: cannot start: no Python for ", found, ": none of ", name, ", python3 and python in ", beside,
              "/, and no ", name, " in PATH (", search_path(), "), that can be executed; install ", name,
              ", or agent-init for a Python that is there (python3 -m pip install agent-init)\n", (char *)0);
    else
        print("agent-init: cannot start: its Python package is not there: no lib/python3.*/site-packages/entrypoint "
              "(or dist-packages/entrypoint, or entrypoint) above the directory of ", file, ", or above one of PATH (",
              search_path(), "); copy the package too, or install agent-init with pip or uv\n", (char *)0);
    for (;;)
        call(SYS_exit_group, 125, 0, 0, 0);
}
