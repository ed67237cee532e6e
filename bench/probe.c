/* The parts of a measurement that must cost nothing: what starts an init, and agents that tell the time.
 *
 *     probe launch FIFO PROGRAM [ARG]...   run PROGRAM as process 1 of a new PID namespace (needs CAP_SYS_ADMIN)
 *     probe AGENT FIFO [ARG]               be an agent, see `main`
 *
 * Each writes lines to the FIFO, a word and a number: times are nanoseconds of CLOCK_MONOTONIC, which all share.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int fifo;

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

/* What `unshare --pid --fork --mount-proc` does, with a stamp just before the exec and one just after the wait. */
static void launch(char **command)
{
	pid_t pid;
	int status;

	must(unshare(CLONE_NEWPID | CLONE_NEWNS) == 0, "unshare");
	must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount /");
	must((pid = fork()) >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives the launcher */
		must(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "mount /proc");
		tell("start", now());
		execv(command[0], command);
		must(0, command[0]);
	}
	tell("pid", pid);
	waitpid(pid, &status, 0);
	tell("end", now());
}

static void handler(int number)
{
	(void)number;
	tell("got", now());
}

static void handle(int number)
{
	struct sigaction action = {.sa_handler = handler};
	sigaction(number, &action, NULL);
}

/* Make `count` orphans that wait, let all of them end at once, and tell how long the last one took to be reaped. */
static void orphans(int count)
{
	int gate[2], made[2];
	pid_t *pids = calloc(count, sizeof *pids), parent;
	char *into = (char *)pids;
	ssize_t size, left = count * sizeof *pids;
	long long start;

	must(pids && pipe(gate) == 0 && pipe(made) == 0 && (parent = fork()) >= 0, "orphans");
	if (parent == 0) {
		for (int i = 0; i < count; i++) {
			pid_t pid = fork();
			must(pid >= 0, "fork");
			if (pid == 0) {
				char nothing;
				close(gate[1]);
				_exit(read(gate[0], &nothing, 1) != 0);
			}
			must(write(made[1], &pid, sizeof pid) == sizeof pid, "write");
		}
		_exit(0);
	}
	close(made[1]);
	for (; left > 0; into += size, left -= size)
		must((size = read(made[0], into, left)) > 0, "read");
	waitpid(parent, NULL, 0);
	start = now();
	close(gate[1]);
	for (int i = 0; i < count; i++)
		while (kill(pids[i], 0) == 0) /* a zombie can still be signalled */
			usleep(100);
	tell("reaped", now() - start);
}

int main(int count, char **words)
{
	long long first = now();

	must(count > 2 && (fifo = open(words[2], O_WRONLY | O_CLOEXEC)) >= 0, "probe ROLE FIFO");
	if (!strcmp(words[1], "launch")) {
		launch(words + 3);
	} else if (!strcmp(words[1], "first")) { /* end at once */
		tell("first", first);
	} else if (!strcmp(words[1], "last")) { /* end when all is at rest */
		usleep(atoi(words[3]) * 1000);
		tell("last", now());
	} else if (!strcmp(words[1], "ready")) {
		tell("ready", first);
	} else if (!strcmp(words[1], "orphans")) {
		orphans(atoi(words[3]));
	} else { /* stay, and `handle` USR1 or ignore a stop (`stubborn`) */
		if (!strcmp(words[1], "handle")) {
			handle(SIGUSR1);
		} else {
			signal(SIGTERM, SIG_IGN);
			signal(SIGINT, SIG_IGN);
		}
		tell("ready", first);
		for (;;)
			pause();
	}
	_exit(0);
}
