/* The parts of a measurement that must cost next to nothing: start an init, be its agent, send signals.
 *
 *     probe launch FIFO PROGRAM [ARG]...        run PROGRAM as process 1 of a new PID namespace (needs CAP_SYS_ADMIN)
 *     probe launch-term FIFO PROGRAM [ARG]...   the same, and send it a TERM as soon as it would not be lost
 *     probe send FIFO PID SIGNAL COUNT          send COUNT signals, one after the other
 *     probe AGENT FIFO [ARG]                    be an agent, see `main`
 *
 * Each writes stamps to the FIFO: lines with a name and a number. Times are nanoseconds of CLOCK_MONOTONIC. Processes
 * share counters and a time in the file FIFO.shared. Every process dies with the bench.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BRANCH 100 /* processes of a tree under one parent */

static int fifo;

static volatile struct shared {
	long long last;  /* when the agent exits; a stamp would wake the bench, beside the init that is measured */
	int made, ended; /* processes of the tree: created; exited on TERM */
} *shared;

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void stamp(const char *name, long long number)
{
	char line[64];
	int length = snprintf(line, sizeof line, "%s %lld\n", name, number);
	if (write(fifo, line, length) != length)
		_exit(99);
}

static void check(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		_exit(99);
	}
}

static void *share(size_t size, int fd)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	check(at != MAP_FAILED, "mmap");
	return at;
}

/* Poll /proc until process 1 blocks or handles TERM; before that the kernel discards it (kill(2)). Return 0 if process 1
 * has ended. No sleep in between: on some virtual machines a timer of 10 us goes off seconds late.
 */
static int await_term(void)
{
	const unsigned long long term = 1ULL << (SIGTERM - 1);
	char text[4096], *blocked, *caught;
	int status = open("/proc/1/status", O_RDONLY | O_CLOEXEC);
	ssize_t size;

	check(status >= 0, "/proc/1/status");
	for (; (size = pread(status, text, sizeof text - 1, 0)) > 0; sched_yield()) {
		text[size] = 0;
		blocked = strstr(text, "SigBlk:");
		caught = strstr(text, "SigCgt:");
		if (blocked && caught && (strtoull(blocked + 7, NULL, 16) | strtoull(caught + 7, NULL, 16)) & term)
			break;
	}
	close(status);
	return size > 0;
}

/* Do what `unshare --pid --fork --mount-proc` does, with a stamp just before the exec and one just after the wait. */
static void launch(char **command, int send_term)
{
	pid_t pid;
	int status, gate[2];
	char nothing = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives the bench */
	check(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0, "unshare");
	check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount /");
	check(pipe2(gate, O_CLOEXEC) == 0 && (pid = fork()) >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* or the launcher */
		check(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "mount /proc");
		check(write(gate[1], &nothing, 1) == 1, "write");
		stamp("start", now());
		execv(command[0], command);
		check(0, command[0]);
	}
	stamp("pid", pid);
	if (send_term) {
		check(read(gate[0], &nothing, 1) == 1, "read");
		if (await_term()) {
			stamp("safe", now());
			kill(pid, SIGTERM);
		}
	}
	waitpid(pid, &status, 0);
	stamp("end", now());
}

static void send(pid_t pid, int number, int count)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	stamp("first-sent", now());
	for (int i = 0; i < count; i++)
		check(kill(pid, number) == 0, "kill");
	stamp("last-sent", now());
}

static void on(int number, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	check(sigaction(number, &action, NULL) == 0, "sigaction");
}

static void stamp_got(int number)
{
	(void)number;
	stamp("got", now());
}

static void exit_on_term(int number)
{
	(void)number;
	__atomic_add_fetch(&shared->ended, 1, __ATOMIC_SEQ_CST);
	_exit(0);
}

static void sleep_forever(void)
{
	for (;;)
		pause();
}

/* Make the `count` - 1 other processes of a tree, each a child of ours or a grandchild. */
static void make_tree(int count)
{
	for (int left = count - 1; left > 0; left -= BRANCH) {
		pid_t branch = fork();
		check(branch >= 0, "fork");
		if (branch)
			continue;
		__atomic_add_fetch(&shared->made, 1, __ATOMIC_SEQ_CST);
		for (int i = 1; i < BRANCH && i < left; i++) {
			pid_t leaf = fork();
			check(leaf >= 0, "fork");
			if (leaf == 0) {
				__atomic_add_fetch(&shared->made, 1, __ATOMIC_SEQ_CST);
				sleep_forever();
			}
		}
		sleep_forever();
	}
	while (shared->made < count - 1)
		usleep(1000);
}

static volatile long arrived;
static volatile long long last_arrival;

static void count_it(int number)
{
	(void)number;
	arrived++;
	last_arrival = now();
}

/* Stamp how many signals have arrived so far and when the last one did, every 20 ms at most. */
static void count(void)
{
	const struct timespec idle = {.tv_sec = 1};
	long reported = 0;

	on(SIGUSR1, count_it);
	on(SIGRTMIN + 3, count_it);
	stamp("ready", now());
	for (;; nanosleep(&idle, NULL)) { /* a signal interrupts it */
		while (arrived != reported) {
			struct timespec end; /* absolute: with a relative time, each interruption would add the timer slack */
			clock_gettime(CLOCK_MONOTONIC, &end);
			end.tv_nsec += 20000000;
			end.tv_sec += end.tv_nsec / 1000000000;
			end.tv_nsec %= 1000000000;
			while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) != 0)
				;
			reported = arrived;
			stamp("last-arrival", last_arrival);
			stamp("arrived", reported);
		}
	}
}

/* Create `count` orphans and let all of them exit at once when the file FIFO.go appears. Stamp the time until the last
 * one was reaped, and the longest time that one of them was a zombie: from just before its exit until it was gone.
 */
static void orphans(int count, const char *go)
{
	int gate[2], made[2], left = count, *index = calloc(count, sizeof *index);
	long long *ended = share(count * sizeof *ended, -1), start, longest = 0;
	pid_t *pids = calloc(count, sizeof *pids), parent;
	char *into = (char *)pids;
	ssize_t size, missing = count * sizeof *pids;

	check(pids && index && pipe(gate) == 0 && pipe(made) == 0 && (parent = fork()) >= 0, "orphans");
	if (parent == 0) {
		for (int i = 0; i < count; i++) {
			pid_t pid = fork();
			check(pid >= 0, "fork");
			if (pid == 0) {
				char nothing;
				close(gate[1]);
				nothing = read(gate[0], &nothing, 1);
				ended[i] = now();
				_exit(nothing);
			}
			check(write(made[1], &pid, sizeof pid) == sizeof pid, "write");
		}
		_exit(0);
	}
	close(made[1]);
	for (; missing > 0; into += size, missing -= size)
		check((size = read(made[0], into, missing)) > 0, "read");
	waitpid(parent, NULL, 0);
	for (int i = 0; i < count; i++)
		index[i] = i;
	stamp("ready", now());
	while (access(go, F_OK) != 0)
		usleep(1000);
	start = now();
	close(gate[1]);
	while (left > 0) { /* kill(2) succeeds on a zombie */
		int kept = 0;
		for (int i = 0; i < left; i++) {
			if (kill(pids[index[i]], 0) == 0)
				index[kept++] = index[i];
			else if (now() - ended[index[i]] > longest)
				longest = now() - ended[index[i]];
		}
		left = kept;
		usleep(500);
	}
	stamp("zombie", longest);
	stamp("reaped", now() - start);
}

static void open_shared(const char *path)
{
	char name[4096];
	int file;

	snprintf(name, sizeof name, "%s.shared", path);
	check((file = open(name, O_RDWR | O_CLOEXEC | O_CREAT, 0600)) >= 0 && ftruncate(file, sizeof *shared) == 0, name);
	shared = share(sizeof *shared, file);
}

int main(int argc, char **argv)
{
	long long first = now();
	const char *role = argv[1], *path = argv[2];
	char name[4096];
	int number = argc > 3 ? atoi(argv[3]) : 0;

	check(argc > 2 && (fifo = open(path, O_WRONLY | O_CLOEXEC)) >= 0, "probe ROLE FIFO");
	if (!strcmp(role, "launch") || !strcmp(role, "launch-term")) {
		launch(argv + 3, !strcmp(role, "launch-term"));
		return 0;
	} else if (!strcmp(role, "send")) {
		send(number, atoi(argv[4]), atoi(argv[5]));
		return 0;
	}
	/* Agents. */
	if (!strcmp(role, "first")) { /* exit at once */
		stamp("first", first);
	} else if (!strcmp(role, "last")) { /* exit after `number` ms, when everything is at rest */
		open_shared(path);
		usleep(number * 1000);
		shared->last = now();
	} else if (!strcmp(role, "orphans")) { /* create `number` of them, then stay */
		snprintf(name, sizeof name, "%s.go", path);
		orphans(number, name);
		sleep_forever();
	} else if (!strcmp(role, "count")) { /* count signals */
		count();
	} else { /* idle, handle, ignore-term, exit-on-term: stay, with a tree of `number` processes */
		open_shared(path);
		if (!strcmp(role, "ignore-term")) { /* all processes */
			signal(SIGTERM, SIG_IGN);
			signal(SIGINT, SIG_IGN);
		} else if (!strcmp(role, "exit-on-term")) { /* all processes; the exits are counted */
			on(SIGTERM, exit_on_term);
		}
		make_tree(number);
		if (!strcmp(role, "handle")) /* the agent itself handles USR1 */
			on(SIGUSR1, stamp_got);
		stamp("ready", first);
		sleep_forever();
	}
	return 0;
}
