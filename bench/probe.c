/* The parts of a measurement that must cost nothing: what starts an init, agents that tell the time, a sender.
 *
 *     probe launch FIFO PROGRAM [ARG]...     run PROGRAM as process 1 of a new PID namespace (needs CAP_SYS_ADMIN)
 *     probe hasten FIFO PROGRAM [ARG]...     the same, with a TERM to it as soon as one would not be lost
 *     probe send FIFO PID SIGNAL COUNT       send so many signals, one after the other
 *     probe AGENT FIFO [ARG]                 be an agent, see `main`
 *
 * Each writes lines to the FIFO, a word and a number: times are nanoseconds of CLOCK_MONOTONIC, which all share. What
 * many processes count together is in the file FIFO.shared. Whatever is left waiting dies with who started it.
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

#define BRANCH 100 /* so many processes of a tree have one parent */

static int fifo;

static volatile struct shared {
	int made, ended; /* processes of the tree: those that are there, those that ended because they got a TERM */
} *shared;

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void tell(const char *word, long long number)
{
	char line[64];
	int length = snprintf(line, sizeof line, "%s %lld\n", word, number);
	if (write(fifo, line, length) != length)
		_exit(99);
}

static void must(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		_exit(99);
	}
}

static void *share(size_t size, int fd)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	must(at != MAP_FAILED, "mmap");
	return at;
}

/* Ask /proc until process 1 blocks or handles TERM: before that the kernel discards it (kill(2), process 1). False when
 * it ended without.
 */
static int await_term(void)
{
	const unsigned long long term = 1ULL << (SIGTERM - 1);
	char text[4096], *blocked, *caught;
	int status = open("/proc/1/status", O_RDONLY | O_CLOEXEC);
	ssize_t size;

	must(status >= 0, "/proc/1/status");
	prctl(PR_SET_TIMERSLACK, 1);
	for (; (size = pread(status, text, sizeof text - 1, 0)) > 0; usleep(10)) {
		text[size] = 0;
		blocked = strstr(text, "SigBlk:");
		caught = strstr(text, "SigCgt:");
		if (blocked && caught && (strtoull(blocked + 7, NULL, 16) | strtoull(caught + 7, NULL, 16)) & term)
			break;
	}
	close(status);
	return size > 0;
}

/* What `unshare --pid --fork --mount-proc` does, with a stamp just before the exec and one just after the wait. */
static void launch(char **command, int hasten)
{
	pid_t pid;
	int status, gate[2];
	char nothing = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives the program that measures */
	must(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0, "unshare");
	must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount /");
	must(pipe2(gate, O_CLOEXEC) == 0 && (pid = fork()) >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* nor the launcher */
		must(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "mount /proc");
		must(write(gate[1], &nothing, 1) == 1, "write");
		tell("start", now());
		execv(command[0], command);
		must(0, command[0]);
	}
	tell("pid", pid);
	if (hasten) {
		must(read(gate[0], &nothing, 1) == 1, "read");
		if (await_term()) {
			tell("safe", now());
			kill(pid, SIGTERM);
		}
	}
	waitpid(pid, &status, 0);
	tell("end", now());
}

static void send(pid_t pid, int number, int count)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	tell("first-sent", now());
	for (int i = 0; i < count; i++)
		must(kill(pid, number) == 0, "kill");
	tell("last-sent", now());
}

static void on(int number, void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	must(sigaction(number, &action, NULL) == 0, "sigaction");
}

static void say_got(int number)
{
	(void)number;
	tell("got", now());
}

static void end(int number)
{
	(void)number;
	__atomic_add_fetch(&shared->ended, 1, __ATOMIC_SEQ_CST);
	_exit(0);
}

static void rest(void)
{
	for (;;)
		pause();
}

/* Make the `count` - 1 other processes of a tree, each a child of ours or a grandchild. */
static void grow(int count)
{
	for (int left = count - 1; left > 0; left -= BRANCH) {
		pid_t branch = fork();
		must(branch >= 0, "fork");
		if (branch)
			continue;
		__atomic_add_fetch(&shared->made, 1, __ATOMIC_SEQ_CST);
		for (int i = 1; i < BRANCH && i < left; i++) {
			pid_t leaf = fork();
			must(leaf >= 0, "fork");
			if (leaf == 0) {
				__atomic_add_fetch(&shared->made, 1, __ATOMIC_SEQ_CST);
				rest();
			}
		}
		rest();
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

/* Tell how many signals have come so far and when the last one did, at most every 20 ms. */
static void count(void)
{
	const struct timespec idle = {.tv_sec = 1};
	long told = 0;

	on(SIGUSR1, count_it);
	on(SIGRTMIN + 3, count_it);
	tell("ready", now());
	for (;; nanosleep(&idle, NULL)) { /* a signal ends that early */
		while (arrived != told) {
			struct timespec end; /* absolute: the rest of a sleep that is cut short grows by the timer's slack */
			clock_gettime(CLOCK_MONOTONIC, &end);
			end.tv_nsec += 20000000;
			end.tv_sec += end.tv_nsec / 1000000000;
			end.tv_nsec %= 1000000000;
			while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) != 0)
				;
			told = arrived;
			tell("last-arrival", last_arrival);
			tell("arrived", told);
		}
	}
}

/* Make `count` orphans that wait and, when the file FIFO.go is there, let all of them end at once. Tell how long it
 * took until the last one was reaped, and the longest time that one of them was a zombie: from just before its exit
 * until it was seen to be gone.
 */
static void orphans(int count, const char *go)
{
	int gate[2], made[2], left = count, *index = calloc(count, sizeof *index);
	long long *ended = share(count * sizeof *ended, -1), start, longest = 0;
	pid_t *pids = calloc(count, sizeof *pids), parent;
	char *into = (char *)pids;
	ssize_t size, missing = count * sizeof *pids;

	must(pids && index && pipe(gate) == 0 && pipe(made) == 0 && (parent = fork()) >= 0, "orphans");
	if (parent == 0) {
		for (int i = 0; i < count; i++) {
			pid_t pid = fork();
			must(pid >= 0, "fork");
			if (pid == 0) {
				char nothing;
				close(gate[1]);
				nothing = read(gate[0], &nothing, 1);
				ended[i] = now();
				_exit(nothing);
			}
			must(write(made[1], &pid, sizeof pid) == sizeof pid, "write");
		}
		_exit(0);
	}
	close(made[1]);
	for (; missing > 0; into += size, missing -= size)
		must((size = read(made[0], into, missing)) > 0, "read");
	waitpid(parent, NULL, 0);
	for (int i = 0; i < count; i++)
		index[i] = i;
	tell("ready", now());
	while (access(go, F_OK) != 0)
		usleep(1000);
	start = now();
	close(gate[1]);
	while (left > 0) { /* a zombie can still be signalled */
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
	tell("zombie", longest);
	tell("reaped", now() - start);
}

int main(int words, char **word)
{
	long long first = now();
	const char *role = word[1], *path = word[2];
	char name[4096];
	int number = words > 3 ? atoi(word[3]) : 0;

	must(words > 2 && (fifo = open(path, O_WRONLY | O_CLOEXEC)) >= 0, "probe ROLE FIFO");
	if (!strcmp(role, "launch") || !strcmp(role, "hasten")) {
		launch(word + 3, role[0] == 'h');
		return 0;
	} else if (!strcmp(role, "send")) {
		send(number, atoi(word[4]), atoi(word[5]));
		return 0;
	}
	/* Agents. */
	if (!strcmp(role, "first")) { /* end at once */
		tell("first", first);
	} else if (!strcmp(role, "last")) { /* end after `number` ms, when all is at rest */
		usleep(number * 1000);
		tell("last", now());
	} else if (!strcmp(role, "orphans")) { /* make `number` of them, then stay */
		snprintf(name, sizeof name, "%s.go", path);
		orphans(number, name);
		rest();
	} else if (!strcmp(role, "count")) { /* count the signals that come */
		count();
	} else { /* stay with a tree of `number` processes, each as the role says */
		int file;
		snprintf(name, sizeof name, "%s.shared", path);
		must((file = open(name, O_RDWR | O_CLOEXEC | O_CREAT, 0600)) >= 0 && ftruncate(file, sizeof *shared) == 0, name);
		shared = share(sizeof *shared, file);
		if (!strcmp(role, "stubborn")) { /* all ignore a stop */
			signal(SIGTERM, SIG_IGN);
			signal(SIGINT, SIG_IGN);
		} else if (!strcmp(role, "obedient")) { /* each ends by itself, and is counted */
			on(SIGTERM, end);
		}
		grow(number);
		if (!strcmp(role, "handle")) /* the agent itself handles USR1 */
			on(SIGUSR1, say_got);
		tell("ready", first);
		rest();
	}
	return 0;
}
