// guest.c - the conductor: PID 1 of the oracle guest.
//
// Runs the scenarios of /scenarios.txt (written by record.py) against the real
// ksmd and prints one JSON line per step on the QEMU debug console (port 0xe9).
//
// ksmd is single-stepped like this:
//   * outside a batch pages_to_scan is 0, so every stray wake-up of ksmd (a new
//     mm, run=1) ends in ksm_do_scan(0), which touches nothing;
//   * for a batch, pages_to_scan becomes N and sleep_millisecs flips between two
//     huge values: ksmd leaves ksm_iter_wait, does exactly one ksm_do_scan(N) and
//     sleeps again;
//   * the batch is over when ksmd is in state S again (every other sleep inside
//     a batch, such as lru_add_drain_all's, is in state D).
// Memory operations run only while ksmd sleeps, and the per-CPU LRU batches are
// drained after each of them (a raised page refcount would defeat merging).

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <dirent.h>

#define PAGE 4096UL
#define KSM "/sys/kernel/mm/ksm/"
#define MAX_PROC 32
#define MAX_AREA 64
#define AREA_BASE 0x10000000000UL
#define AREA_STRIDE 0x1000000UL
#define MAX_PAGES 4096
#define PATIENCE 150	/* looks at a ksmd that does not wake */
#define SLEEP_A 100000000U
#define SLEEP_B 100000001U

#define MPOL_BIND 2
#define MPOL_MF_MOVE_ALL 4
#define KPF_ANON 12
#define KPF_KSM 21
#define KPF_ZERO_PAGE 24
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif
/* with nokaslr and no5lvl; sizeof(struct page) and offsetof(struct page, mapping) */
#define VMEMMAP 0xffffea0000000000UL
#define STRUCT_PAGE 64
#define PAGE_MAPPING 24

enum { OP_EXIT, OP_MMAP, OP_WRITE, OP_READ, OP_DISCARD, OP_MUNMAP, OP_MERGEABLE,
       OP_UNMERGEABLE, OP_MPROTECT, OP_FORK, OP_MERGE_ANY };

struct cmd { int op; int n; unsigned long a, b, c, d; };
struct reply { long ret; int err; };

struct area { int used; unsigned long addr; int pages; int prot; int64_t *last; };
struct proc { int alive; pid_t pid; int cpu; struct area area[MAX_AREA]; };

static struct proc procs[MAX_PROC];
static int to_worker[MAX_PROC][2], from_worker[MAX_PROC][2];
static FILE *script;
static int kpageflags_fd = -1;

/* ---- output: the debug console, one outsb per line ---- */
static char out[1 << 20];
static size_t outn;
static void say(const char *fmt, ...) {
	va_list ap;
	va_start(ap, fmt);
	outn += vsnprintf(out + outn, sizeof out - outn, fmt, ap);
	va_end(ap);
}
static void flush_line(void) {
	const char *p = out;
	size_t n;
	out[outn++] = '\n';
	n = outn;
	__asm__ volatile("rep outsb" : "+S"(p), "+c"(n) : "d"((unsigned short)0xe9) : "memory");
	outn = 0;
}
static void power_off(void) {
	sync();
	reboot(RB_POWER_OFF);
	for (;;) pause();
}
static void die(const char *fmt, ...) {
	char b[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(b, sizeof b, fmt, ap);
	va_end(ap);
	outn = 0;
	say("{\"fatal\":\"%s (errno %d)\"}", b, errno);
	flush_line();
	power_off();
}

/* ---- small files ---- */
static int slurp(const char *path, char *b, size_t cap) {
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n, t = 0;
	if (fd < 0) return -errno;
	while ((n = read(fd, b + t, cap - 1 - t)) > 0) t += n;
	close(fd);
	b[t] = 0;
	return t;
}
static int put(const char *path, const char *v) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int e = 0;
	if (fd < 0) return errno;
	if (write(fd, v, strlen(v)) < 0) e = errno;
	close(fd);
	return e;
}
static int put_ksm(const char *name, const char *v) {
	char p[256];
	snprintf(p, sizeof p, KSM "%s", name);
	return put(p, v);
}
static int put_ksm_n(const char *name, unsigned long v) {
	char b[32];
	snprintf(b, sizeof b, "%lu", v);
	return put_ksm(name, b);
}
static int get_ksm(const char *name, long *v) {
	char p[256], b[256];
	snprintf(p, sizeof p, KSM "%s", name);
	if (slurp(p, b, sizeof b) < 0) return -1;
	*v = atol(b);
	return 0;
}
static long cow_ksm(void) {
	static char b[65536];
	char *p;
	if (slurp("/proc/vmstat", b, sizeof b) < 0) return -1;
	p = strstr(b, "\ncow_ksm ");
	return p ? atol(p + 9) : -1;
}

/* Recorded in this order, where the kernel has them. */
static const char *fields[] = {
	"full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
	"pages_scanned", "pages_skipped", "ksm_zero_pages", "stable_node_chains",
	"stable_node_dups", "general_profit", "merge_across_nodes", "max_page_sharing",
	"use_zero_pages", "smart_scan", "stable_node_chains_prune_millisecs",
};
#define NFIELD ((int)(sizeof fields / sizeof *fields))
static int have[NFIELD];

/* ---- ksmd ---- */
static pid_t ksmd;
static unsigned sleep_now = SLEEP_A;
static unsigned long pages_to_scan = 100;	/* the scenario's, not the live one */
static int run_now;

static void nap(long us) {
	struct timespec t = { us / 1000000, us % 1000000 * 1000 };
	nanosleep(&t, NULL);
}
static char ksmd_state(void) {
	char p[64], b[1024], *q;
	snprintf(p, sizeof p, "/proc/%d/stat", ksmd);
	if (slurp(p, b, sizeof b) < 0) die("no ksmd");
	q = strrchr(b, ')');
	return q[2];
}
static unsigned long ksmd_switches(void) {
	char p[64], b[4096], *q;
	snprintf(p, sizeof p, "/proc/%d/status", ksmd);
	if (slurp(p, b, sizeof b) < 0) die("no ksmd status");
	q = strstr(b, "\nvoluntary_ctxt_switches:");
	return q ? strtoul(q + 25, NULL, 10) : 0;
}
/*
 * Wait until ksmd sleeps, in ksm_iter_wait or (nothing to do) ksm_thread_wait, and
 * return its count of voluntary switches.  A waiting thread sets state S some time
 * before it is switched out and counted, and once more for a moment when it wakes
 * up, hence the two looks with a nap in between.
 */
static unsigned long ksmd_settle(void) {
	unsigned long v = 0, now;
	int i, seen = 0;
	for (i = 0; i < 600000; i++) {
		now = ksmd_switches();
		if (ksmd_state() == 'S' && ksmd_switches() == now) {
			if (seen && now == v) return v;
			seen = 1;
			v = now;
		} else {
			seen = 0;
		}
		nap(i < 50 ? 150 : 500);
	}
	die("ksmd does not settle");
	return 0;
}
/*
 * Let ksmd run one batch.  Returns 0 if it did not wake: it then sits in
 * ksm_thread_wait, because no mm is registered.  The flip makes it runnable at
 * once if it sits in ksm_iter_wait; the batch is over when it sleeps in state S
 * again and has been counted (sleeps inside a batch are in state D).
 */
static int batch(void) {
	unsigned long v0;
	int i;
	if (run_now != 1) return 0;
	v0 = ksmd_settle();
	put_ksm_n("pages_to_scan", pages_to_scan);
	sleep_now = sleep_now == SLEEP_A ? SLEEP_B : SLEEP_A;
	put_ksm_n("sleep_millisecs", sleep_now);
	for (i = 0; i < PATIENCE; i++)
		if (ksmd_settle() > v0) break;
	put_ksm_n("pages_to_scan", 0);
	return i < PATIENCE;
}
static void find_ksmd(void) {
	DIR *d = opendir("/proc");
	struct dirent *e;
	char p[300], b[64];
	while (d && (e = readdir(d))) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9') continue;
		snprintf(p, sizeof p, "/proc/%s/comm", e->d_name);
		if (slurp(p, b, sizeof b) > 0 && !strcmp(b, "ksmd\n")) ksmd = atoi(e->d_name);
	}
	closedir(d);
	if (!ksmd) die("no ksmd thread");
}

/* ---- drain the per-CPU LRU batches of every CPU ---- */
static char *dummy;
static void drain(void) {
	void *p = dummy;
	int node = 0, st = -1;
	/* do_pages_move() begins with lru_cache_disable() = lru_add_drain_all(force) */
	if (syscall(SYS_move_pages, 0, 1UL, &p, &node, &st, MPOL_MF_MOVE_ALL) < 0)
		die("drain");
}

/* ---- workers ---- */
static struct { unsigned long addr; int prot; } w_area[MAX_AREA];	/* worker's own */
static int w_prot(unsigned long addr) {
	int i;
	for (i = 0; i < MAX_AREA; i++)
		if (w_area[i].addr == (addr & ~(AREA_STRIDE - 1))) return w_area[i].prot;
	return PROT_READ | PROT_WRITE;
}
/*
 * PR_SET_MEMORY_MERGE takes in all memory of the process, the worker's own too, whose
 * contents are nobody's business: take that out again, VMA by VMA.
 */
static int w_merge_any(int on) {
	static char maps[65536];
	char *line;
	int fd, n, t = 0;
	if (prctl(PR_SET_MEMORY_MERGE, on, 0, 0, 0)) return -1;
	if (!on) return 0;
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -1;
	while ((n = read(fd, maps + t, sizeof maps - 1 - t)) > 0) t += n;
	close(fd);
	maps[t] = 0;
	for (line = strtok(maps, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long start, end;
		if (sscanf(line, "%lx-%lx", &start, &end) != 2) return -1;
		if (start >= AREA_BASE && start < AREA_BASE + MAX_AREA * AREA_STRIDE) continue;
		/* the kernel's own mappings refuse all advice */
		if (madvise((void *)start, end - start, MADV_UNMERGEABLE) && errno != EINVAL && errno != ENOMEM)
			return -1;
	}
	errno = 0;
	return 0;
}
static int read_full(int fd, void *b, size_t n) {
	size_t t = 0;
	while (t < n) {
		ssize_t r = read(fd, (char *)b + t, n - t);
		if (r < 0 && errno == EINTR) continue;
		if (r <= 0) return -1;
		t += r;
	}
	return 0;
}
static void write_full(int fd, const void *b, size_t n) {
	size_t t = 0;
	while (t < n) {
		ssize_t r = write(fd, (const char *)b + t, n - t);
		if (r < 0 && errno == EINTR) continue;
		if (r < 0) _exit(3);
		t += r;
	}
}
static int64_t ids[MAX_PAGES];
static void worker(int me) {
	struct cmd c;
	struct reply r;
	static uint64_t img[512];
	volatile char sink;
	int i, j, fd;
	for (;;) {
		if (read_full(to_worker[me][0], &c, sizeof c)) _exit(2);
		if (c.op == OP_WRITE && read_full(to_worker[me][0], ids, c.n * sizeof *ids)) _exit(2);
		memset(&r, 0, sizeof r);
		errno = 0;
		switch (c.op) {
		case OP_EXIT:
			_exit(0);
		case OP_MMAP: {	/* a address, b bytes, c node, d mergeable */
			unsigned long mask = 1UL << c.c;
			void *m = mmap((void *)c.a, c.b, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
			if (m == MAP_FAILED) { r.ret = -1; break; }
			r.ret = syscall(SYS_mbind, m, c.b, MPOL_BIND, &mask, 64UL, 0UL);
			if (!r.ret && c.d) r.ret = madvise(m, c.b, MADV_MERGEABLE);
			for (i = 0; i < MAX_AREA; i++)
				if (!w_area[i].addr) {
					w_area[i].addr = c.a;
					w_area[i].prot = PROT_READ | PROT_WRITE;
					break;
				}
			break;
		}
		case OP_WRITE:	/* a address, n pages, ids: content ids, -1 leaves the page alone */
			for (i = 0; i < c.n; i++) {
				unsigned long a = c.a + i * PAGE;
				if (ids[i] < 0) continue;
				if (w_prot(a) & PROT_WRITE) {
					uint64_t *p = (uint64_t *)a;
					for (j = 0; j < 512; j++) p[j] = htobe64(ids[i]);
				} else {	/* as a debugger would */
					for (j = 0; j < 512; j++) img[j] = htobe64(ids[i]);
					fd = open("/proc/self/mem", O_RDWR);
					if (fd < 0 || pwrite(fd, img, PAGE, a) != (ssize_t)PAGE) r.ret = -1;
					r.err = r.ret ? errno : 0;
					if (fd >= 0) close(fd);
					if (r.ret) break;
				}
			}
			break;
		case OP_READ:	/* a address, b pages */
			for (i = 0; i < (int)c.b; i++) sink = *(volatile char *)(c.a + i * PAGE);
			(void)sink;
			break;
		case OP_DISCARD:
			r.ret = madvise((void *)c.a, c.b, MADV_DONTNEED);
			break;
		case OP_MUNMAP:
			r.ret = munmap((void *)c.a, c.b);
			break;
		case OP_MERGEABLE:
			r.ret = madvise((void *)c.a, c.b, MADV_MERGEABLE);
			break;
		case OP_UNMERGEABLE:
			r.ret = madvise((void *)c.a, c.b, MADV_UNMERGEABLE);
			break;
		case OP_MPROTECT:	/* whole areas only */
			r.ret = mprotect((void *)c.a, c.b, c.c);
			for (i = 0; i < MAX_AREA; i++)
				if (w_area[i].addr == c.a && !r.ret) w_area[i].prot = c.c;
			break;
		case OP_MERGE_ANY:
			r.ret = w_merge_any(c.a);
			break;
		case OP_FORK: {	/* a child's index; the child becomes the conductor's child */
			long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
			if (pid == 0) { me = c.a; continue; }
			r.ret = pid;
			break;
		}
		}
		if (r.ret < 0 && !r.err) r.err = errno;
		write_full(from_worker[me][1], &r, sizeof r);
	}
}
static int ask(int p, struct cmd *c, struct reply *r) {
	struct pollfd f = { from_worker[p][0], POLLIN, 0 };
	write_full(to_worker[p][1], c, sizeof *c);
	if (c->op == OP_WRITE) write_full(to_worker[p][1], ids, c->n * sizeof *ids);
	if (c->op == OP_EXIT) return 0;
	if (poll(&f, 1, 60000) != 1) die("worker %d is silent", p);
	if (read_full(from_worker[p][0], r, sizeof *r)) die("worker %d is gone", p);
	return r->err;
}
static void reap(int p) {
	int st;
	while (waitpid(procs[p].pid, &st, 0) < 0)
		if (errno != EINTR) die("waitpid %d", p);
	if (!WIFEXITED(st) || WEXITSTATUS(st)) die("worker %d ended with %x", p, st);
	procs[p].alive = 0;
}
static void forget(int p) {
	int a;
	for (a = 0; a < MAX_AREA; a++) free(procs[p].area[a].last);
	memset(procs[p].area, 0, sizeof procs[p].area);
}

/* ---- the reset between scenarios ---- */
static void reset(void) {
	struct cmd c = { OP_EXIT, 0, 0, 0, 0, 0 };
	long v;
	int p, i;
	static const char *zero[] = { "pages_shared", "pages_sharing", "pages_unshared",
		"pages_volatile", "stable_node_chains", "stable_node_dups", "full_scans" };
	for (p = 0; p < MAX_PROC; p++) {
		if (procs[p].alive) { ask(p, &c, NULL); reap(p); }
		forget(p);
	}
	put_ksm("pages_to_scan", "0");
	drain();
	/* run=2 drops all rmap_items and exited mms, clears full_scans, rewinds the cursor */
	if (put_ksm("run", "0") || put_ksm("run", "2") || put_ksm("run", "0")) die("reset run");
	if (put_ksm("merge_across_nodes", "1") || put_ksm("max_page_sharing", "256") ||
	    put_ksm("use_zero_pages", "0") || put_ksm("stable_node_chains_prune_millisecs", "2000"))
		die("reset knobs");
	put_ksm("smart_scan", "0");	/* absent before 6.7 */
	for (i = 0; i < (int)(sizeof zero / sizeof *zero); i++)
		if (!get_ksm(zero[i], &v) && v) die("reset: %s is %ld", zero[i], v);
	run_now = 0;
	pages_to_scan = 100;
}

/* ---- observation ---- */

/*
 * KPF_KSM of /proc/kpageflags is wrong in 6.12: it is set for every anonymous
 * page.  So the two low bits of page->mapping are read through /proc/kcore:
 * 1 is an anonymous page, 3 a KSM page.
 */
#include <elf.h>
static int kcore_fd = -1;
static Elf64_Phdr kcore_ph[64];
static int kcore_n;
static int kpf_disagrees;
static void open_kcore(void) {
	Elf64_Ehdr h;
	kcore_fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
	if (kcore_fd < 0 || pread(kcore_fd, &h, sizeof h, 0) != sizeof h) die("kcore");
	kcore_n = h.e_phnum < 64 ? h.e_phnum : 64;
	if (pread(kcore_fd, kcore_ph, kcore_n * sizeof *kcore_ph, h.e_phoff) !=
	    (ssize_t)(kcore_n * sizeof *kcore_ph)) die("kcore headers");
}
static uint64_t kread(uint64_t va) {
	uint64_t v;
	int i;
	for (i = 0; i < kcore_n; i++) {
		Elf64_Phdr *p = &kcore_ph[i];
		if (p->p_type != PT_LOAD || va < p->p_vaddr || va + 8 > p->p_vaddr + p->p_memsz) continue;
		if (pread(kcore_fd, &v, 8, p->p_offset + (va - p->p_vaddr)) != 8) die("kcore read");
		return v;
	}
	die("kcore has no %lx", va);
	return 0;
}
static int is_ksm(uint64_t pfn, uint64_t kpf) {
	int low = kread(VMEMMAP + pfn * STRUCT_PAGE + PAGE_MAPPING) & 3;
	if (!(low & 1) || !(kpf >> KPF_ANON & 1)) die("pfn %lx is not anonymous", pfn);
	if ((low == 3) != (int)(kpf >> KPF_KSM & 1)) kpf_disagrees++;
	return low == 3;
}
static void emit_state(void) {
	char p[64], b[2048];
	int i, k, a, first = 1;
	say(",\"s\":[");
	for (i = k = 0; i < NFIELD; i++) {
		long v = 0;
		if (!have[i]) continue;
		get_ksm(fields[i], &v);
		say(k++ ? ",%ld" : "%ld", v);
	}
	say("],\"cow\":%ld,\"p\":[", cow_ksm());
	for (i = 0; i < MAX_PROC; i++) {
		char *q;
		if (!procs[i].alive) continue;
		say(first ? "[%d" : ",[%d", i);
		first = 0;
		snprintf(p, sizeof p, "/proc/%d/ksm_merging_pages", procs[i].pid);
		if (slurp(p, b, sizeof b) > 0) say(",\"ksm_merging_pages\",%ld", atol(b));
		snprintf(p, sizeof p, "/proc/%d/ksm_stat", procs[i].pid);
		if (slurp(p, b, sizeof b) > 0)
			for (q = strtok(b, "\n"); q; q = strtok(NULL, "\n")) {
				char name[64], val[64];
				if (sscanf(q, "%63[^: ]%*[: ]%63s", name, val) != 2) continue;
				if (!strcmp(name, "ksm_merging_pages")) continue;
				say(",\"%s\",%s", name, !strcmp(val, "yes") ? "1" : !strcmp(val, "no") ? "0" : val);
			}
		say("]");
	}
	say("],\"t\":[");
	first = 1;
	for (i = 0; i < MAX_PROC; i++) {
		int fd;
		if (!procs[i].alive) continue;
		snprintf(p, sizeof p, "/proc/%d/pagemap", procs[i].pid);
		fd = open(p, O_RDONLY | O_CLOEXEC);
		if (fd < 0) die("pagemap of %d", i);
		for (a = 0; a < MAX_AREA; a++) {
			struct area *ar = &procs[i].area[a];
			static uint64_t pm[MAX_PAGES];
			static int64_t now[MAX_PAGES];
			int n;
			if (!ar->used) continue;
			if (pread(fd, pm, ar->pages * 8UL, ar->addr / PAGE * 8) != (ssize_t)(ar->pages * 8UL))
				die("pagemap read");
			for (n = 0; n < ar->pages; n++) {
				uint64_t fl = 0, pfn = pm[n] & ((1ULL << 55) - 1);
				if (pm[n] >> 62 & 1) { now[n] = -3; continue; }	/* swap: never expected */
				if (!(pm[n] >> 63)) { now[n] = -1; continue; }
				if (pread(kpageflags_fd, &fl, 8, pfn * 8) != 8) die("kpageflags");
				now[n] = fl >> KPF_ZERO_PAGE & 1 ? -2 : (int64_t)(pfn << 1 | is_ksm(pfn, fl));
			}
			if (ar->last && !memcmp(ar->last, now, ar->pages * sizeof *now)) continue;
			if (!ar->last) ar->last = malloc(MAX_PAGES * sizeof *now);
			memcpy(ar->last, now, ar->pages * sizeof *now);
			say(first ? "[%d,%d" : ",[%d,%d", i, a);
			first = 0;
			for (n = 0; n < ar->pages; n++) say(",%ld", (long)now[n]);
			say("]");
		}
		close(fd);
	}
	say("]}");
	flush_line();
}

/* ---- one step; fills in the errno and optional extra ---- */
static int step(const char *op) {
	struct cmd c;
	struct reply r;
	int p, a, n, first, i, e = 0, child, node;
	char name[64], val[64];
	memset(&c, 0, sizeof c);
	if (!strcmp(op, "spawn")) {
		cpu_set_t set;
		pid_t pid;
		if (fscanf(script, "%d %d", &p, &n) != 2) die("spawn args");
		CPU_ZERO(&set);
		CPU_SET(n, &set);
		pid = fork();
		if (pid < 0) die("fork");
		if (!pid) {
			prctl(PR_SET_NAME, "worker");
			if (sched_setaffinity(0, sizeof set, &set)) _exit(4);
			worker(p);
		}
		procs[p].alive = 1;
		procs[p].pid = pid;
		procs[p].cpu = n;
		c.op = OP_READ;	/* no pages: just a hello */
		ask(p, &c, &r);
	} else if (!strcmp(op, "mmap")) {
		int merge;
		if (fscanf(script, "%d %d %d %d %d", &p, &a, &n, &node, &merge) != 5) die("mmap args");
		c = (struct cmd){ OP_MMAP, 0, AREA_BASE + a * AREA_STRIDE, n * PAGE, node, merge };
		e = ask(p, &c, &r);
		procs[p].area[a] = (struct area){ 1, c.a, n, 3, NULL };
	} else if (!strcmp(op, "write")) {
		if (fscanf(script, "%d %d %d %d", &p, &a, &first, &n) != 4) die("write args");
		for (i = 0; i < n; i++)
			if (fscanf(script, "%ld", &ids[i]) != 1) die("write ids");
		c = (struct cmd){ OP_WRITE, n, procs[p].area[a].addr + first * PAGE, 0, 0, 0 };
		e = ask(p, &c, &r);
	} else if (!strcmp(op, "read")) {
		if (fscanf(script, "%d %d %d %d", &p, &a, &first, &n) != 4) die("read args");
		c = (struct cmd){ OP_READ, 0, procs[p].area[a].addr + first * PAGE, n, 0, 0 };
		e = ask(p, &c, &r);
	} else if (!strcmp(op, "discard") || !strcmp(op, "munmap") || !strcmp(op, "mergeable") ||
		   !strcmp(op, "unmergeable")) {
		if (fscanf(script, "%d %d %d %d", &p, &a, &first, &n) != 4) die("range args");
		c = (struct cmd){ op[0] == 'd' ? OP_DISCARD : op[0] == 'u' ? OP_UNMERGEABLE :
				  op[1] == 'u' ? OP_MUNMAP : OP_MERGEABLE, 0,
				  procs[p].area[a].addr + first * PAGE, n * PAGE, 0, 0 };
		e = ask(p, &c, &r);
	} else if (!strcmp(op, "mprotect")) {
		if (fscanf(script, "%d %d %d", &p, &a, &n) != 3) die("mprotect args");
		c = (struct cmd){ OP_MPROTECT, 0, procs[p].area[a].addr,
				  procs[p].area[a].pages * PAGE, n, 0 };
		e = ask(p, &c, &r);
	} else if (!strcmp(op, "merge_any")) {
		if (fscanf(script, "%d %d", &p, &n) != 2) die("merge_any args");
		c = (struct cmd){ OP_MERGE_ANY, 0, n, 0, 0, 0 };
		e = ask(p, &c, &r);
	} else if (!strcmp(op, "fork")) {
		if (fscanf(script, "%d %d", &p, &child) != 2) die("fork args");
		c = (struct cmd){ OP_FORK, 0, child, 0, 0, 0 };
		e = ask(p, &c, &r);
		if (!e) {
			procs[child].alive = 1;
			procs[child].pid = r.ret;
			procs[child].cpu = procs[p].cpu;
			for (a = 0; a < MAX_AREA; a++) {
				procs[child].area[a] = procs[p].area[a];
				procs[child].area[a].last = NULL;
			}
			c = (struct cmd){ OP_READ, 0, 0, 0, 0, 0 };
			ask(child, &c, &r);
		}
	} else if (!strcmp(op, "exit")) {
		if (fscanf(script, "%d", &p) != 1) die("exit args");
		c.op = OP_EXIT;
		ask(p, &c, NULL);
		reap(p);
		forget(p);
	} else if (!strcmp(op, "migrate")) {
		if (fscanf(script, "%d %d %d %d %d", &p, &a, &first, &n, &node) != 5) die("migrate args");
		say(",\"status\":[");
		for (i = 0; i < n; i++) {
			void *addr = (void *)(procs[p].area[a].addr + (first + i) * PAGE);
			int st = -9999;
			long left = syscall(SYS_move_pages, procs[p].pid, 1UL, &addr, &node, &st,
					    MPOL_MF_MOVE_ALL);
			if (left < 0) e = errno;
			/* pages that could not be moved: a count, and no status */
			if (left > 0 && st == -9999) st = -10000;
			say(i ? ",%d" : "%d", st);
		}
		say("]");
	} else if (!strcmp(op, "scan")) {
		int done = 0;
		if (fscanf(script, "%d", &n) != 1) die("scan args");
		for (i = 0; i < n; i++) done += batch();
		say(",\"batches\":%d", done);
	} else if (!strcmp(op, "full_scan")) {
		long f0, f1;
		int done = 0;
		if (fscanf(script, "%d", &n) != 1) die("full_scan args");
		get_ksm("full_scans", &f0);
		for (f1 = f0; f1 < f0 + n && done < 50000; get_ksm("full_scans", &f1)) {
			if (!batch()) break;
			done++;
		}
		say(",\"batches\":%d", done);
	} else if (!strcmp(op, "knob")) {
		if (fscanf(script, "%63s %63s", name, val) != 2) die("knob args");
		if (!strcmp(name, "pages_to_scan")) pages_to_scan = strtoul(val, NULL, 10);
		else e = put_ksm(name, val);
	} else if (!strcmp(op, "run")) {
		if (fscanf(script, "%d", &n) != 1) die("run args");
		e = put_ksm_n("run", n);
		if (!e) run_now = n;
	} else {
		die("unknown op %s", op);
	}
	drain();
	ksmd_settle();
	return e;
}

int main(void) {
	char word[64], name[64], val[64], b[65536];
	struct utsname u;
	int i, k, idx = 0;
	long v;
	mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	if (ioperm(0xe9, 1, 1)) power_off();
	put("/proc/sys/vm/compaction_proactiveness", "0");
	for (i = 0; i < MAX_PROC; i++)
		if (pipe2(to_worker[i], O_CLOEXEC) || pipe2(from_worker[i], O_CLOEXEC)) die("pipe");
	dummy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*dummy = 1;
	kpageflags_fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (kpageflags_fd < 0) die("kpageflags");
	open_kcore();
	find_ksmd();
	put_ksm("run", "0");
	ksmd_settle();
	put_ksm_n("sleep_millisecs", sleep_now);
	put_ksm("pages_to_scan", "0");
	put_ksm("advisor_mode", "none");
	uname(&u);
	say("{\"kernel\":\"%s\",\"fields\":[", u.release);
	for (i = k = 0; i < NFIELD; i++) {
		have[i] = !get_ksm(fields[i], &v);
		if (have[i]) say(k++ ? ",\"%s\"" : "\"%s\"", fields[i]);
	}
	say("],\"ranges\":[");
	/* node pfn ranges from zoneinfo */
	{
		FILE *f = fopen("/proc/zoneinfo", "r");
		char line[256];
		int node = -1, n;
		unsigned long spanned = 0, start;
		char *q;
		k = 0;
		while (f && fgets(line, sizeof line, f)) {
			if (sscanf(line, "Node %d, zone", &n) == 1) { node = n; spanned = 0; }
			if ((q = strstr(line, "spanned"))) spanned = strtoul(q + 7, NULL, 10);
			if ((q = strstr(line, "start_pfn:"))) {
				start = strtoul(q + 10, NULL, 10);
				if (spanned) say(k++ ? ",[%d,%lu,%lu]" : "[%d,%lu,%lu]", node, start, start + spanned);
			}
		}
		if (f) fclose(f);
	}
	say("]}");
	flush_line();

	script = fopen("/scenarios.txt", "r");
	if (!script) die("no scenarios");
	while (fscanf(script, "%63s", word) == 1) {
		if (!strcmp(word, "scenario")) {
			fscanf(script, "%d", &idx);
			reset();
			say("{\"scenario\":%d,\"knob_errno\":{", idx);
			k = 0;
		} else if (!strcmp(word, "init")) {
			int e;
			fscanf(script, "%63s %63s", name, val);
			e = 0;
			if (!strcmp(name, "pages_to_scan")) pages_to_scan = strtoul(val, NULL, 10);
			else if (!strcmp(name, "run")) { e = put_ksm("run", val); run_now = atoi(val); }
			else e = put_ksm(name, val);
			if (e) say(k++ ? ",\"%s\":%d" : "\"%s\":%d", name, e);
		} else if (!strcmp(word, "begin")) {
			ksmd_settle();
			say("}");
			i = -1;
			emit_state();
		} else if (!strcmp(word, "step")) {
			struct timespec t0, t1;
			int e;
			fscanf(script, "%d %63s", &i, word);
			clock_gettime(CLOCK_MONOTONIC, &t0);
			say("{\"i\":%d", i);
			e = step(word);
			clock_gettime(CLOCK_MONOTONIC, &t1);
			say(",\"e\":%d,\"us\":%ld", e,
			    (t1.tv_sec - t0.tv_sec) * 1000000 + (t1.tv_nsec - t0.tv_nsec) / 1000);
			emit_state();
		} else if (!strcmp(word, "end")) {
			say("{\"end\":%d}", idx);
			flush_line();
		} else if (!strcmp(word, "stop")) {
			reset();
			if (slurp("/proc/sys/kernel/tainted", b, sizeof b) < 0) strcpy(b, "0");
			say("{\"stop\":1,\"tainted\":%ld,\"kpf_ksm_wrong\":%d}", atol(b), kpf_disagrees);
			flush_line();
			power_off();
		}
	}
	die("script ended early");
	return 0;
}
