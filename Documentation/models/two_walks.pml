/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two walks over the same pages at once, and the nested flush: rust/tlb.rs.
 *
 * PROPERTY a store after the call leaves a mark: a write fault after write_protect,
 *	a dirty bit after clean_record
 *
 * The two walks hold a read lock. Each page is in a PTE table of its own, so each has
 * a lock. The CPU that stores has a TLB; what is dirty there sets no bit any more.
 *
 * FULL -DCPUS=2
 *
 * MUTANT skip_nested_check	race control_no_nested_check
 *	a scope asks whether another one is open
 * MUTANT skip_pending		soft_dirty_race control_no_pending
 *	a scope raises tlb_flush_pending
 * MUTANT leak_pending		signal control_leaked_pending
 *	and lowers it again
 * MUTANT skip_flush		race control_no_flush
 *	the flush
 * MUTANT flush_changed_only	-
 *	a nested scope flushes all of its range
 * MUTANT pending_late		-
 *	pending is raised before the first entry is changed
 * MUTANT pending_lowered_early	-
 *	pending is lowered after the flush
 */

#define PAGES	2
#define WALKS	2
#ifndef CALLS
#define CALLS	1	/* of each walk */
#endif
#ifndef CPUS
#define CPUS	1	/* that store */
#endif

#define at(x, p)	((x) * PAGES + (p))

/* The entries, and their locks. */
bool writable[PAGES] = true;
bool dirty[PAGES];
bool locked[PAGES];

/* A translation in the TLB is writable and dirty, or worth nothing here. */
bool tlb[CPUS * PAGES];

byte pending;		/* mm->tlb_flush_pending */

/*
 * What a caller may rely on: the walk has passed the page, and it has returned. Both
 * end with the mark that a store leaves.
 */
bool passed[WALKS * PAGES];
bool told[WALKS * PAGES];

byte ended;

inline mark_left(p)
{
	passed[at(0, p)] = false;
	passed[at(1, p)] = false;
	told[at(0, p)] = false;
	told[at(1, p)] = false;
}

inline flush(c, p)
{
#ifdef skip_flush
	skip
#else
	atomic {
		printf("walk %d: flush of page %d on cpu %d\n", w, p, c);
		tlb[at(c, p)] = false
	}
#endif
}

proctype walk(byte w; bool cleans)
{
	bool changed[PAGES];
	bool nested;
	byte p, calls;

	do
	:: calls < CALLS ->
		/* FlushScope::begin(): Pending::raise() */
#if !defined(skip_pending) && !defined(pending_late)
		pending++;
		printf("walk %d: pending = %d\n", w, pending);
#endif
		p = 0;
		do
		:: p < PAGES ->
			/* walk/lock.rs */
			atomic { !locked[p] -> locked[p] = true };
			/* write_protect_table(), clean_record_table(): mmops_update() */
			atomic {
				if
				:: cleans && dirty[p] ->
					dirty[p] = false;
					changed[p] = true;
					printf("walk %d: page %d is made clean\n", w, p)
				:: !cleans && writable[p] ->
					writable[p] = false;
					changed[p] = true;
					printf("walk %d: page %d is made read-only\n", w, p)
				:: else ->
					printf("walk %d: page %d needs no change\n", w, p)
				fi;
				passed[at(w, p)] = true
			};
			locked[p] = false;
#ifdef pending_late
			if
			:: p == 0 -> pending++
			:: else
			fi;
#endif
			p++
		:: else -> break
		od;

		/* FlushScope::drop() */
#ifdef pending_lowered_early
		nested = pending > 1;
		pending--;
#endif
before_flush:
		/* is_nested() */
#if defined(skip_nested_check) || defined(flush_changed_only)
		nested = false;
#elif !defined(pending_lowered_early)
		nested = pending > 1;
#endif
		/* flush_locked(): each CPU answers for itself */
		p = 0;
		do
		:: p < PAGES ->
			if
			:: changed[p] || nested ->
				flush(0, p);
#if CPUS > 1
				flush(1, p);
#endif
				changed[p] = false
			:: else
			fi;
			p++
		:: else -> break
		od;

		/* Pending::drop() */
#if !defined(skip_pending) && !defined(leak_pending) && !defined(pending_lowered_early)
		pending--;
#endif
		atomic {
			printf("walk %d: returns\n", w);
			told[at(w, 0)] = passed[at(w, 0)];
			told[at(w, 1)] = passed[at(w, 1)]
		};
		calls++
	:: else -> break
	od;
	atomic {
		ended++;
		/* Nobody who comes later takes a scope for open. */
		assert(ended < WALKS || pending == 0)
	}
}

inline store(c, p)
{
	atomic {
		if
		:: tlb[at(c, p)] ->
			printf("cpu %d: stores to page %d through its TLB\n", c, p);
			assert(!told[at(0, p)] && !told[at(1, p)])
		:: !tlb[at(c, p)] && writable[p] ->
			/* The CPU looks at the entry, and sets the dirty bit. */
			printf("cpu %d: stores to page %d, dirty\n", c, p);
			dirty[p] = true;
			tlb[at(c, p)] = true;
			mark_left(p)
		:: !tlb[at(c, p)] && !writable[p] && !locked[p] ->
			/* A write fault, under the lock of the table. */
			printf("cpu %d: faults on page %d\n", c, p);
			writable[p] = true;
			dirty[p] = true;
			tlb[at(c, p)] = true;
			mark_left(p)
		fi
	}
}

proctype cpu(byte c)
{
end:
	do
	:: store(c, 0)
	:: store(c, 1)
	:: tlb[at(c, 0)] -> tlb[at(c, 0)] = false	/* to make room */
	:: tlb[at(c, 1)] -> tlb[at(c, 1)] = false
	od
}

init {
	atomic {
		if
		:: run walk(0, false)
		:: run walk(0, true)
		fi;
		if
		:: run walk(1, false)
		:: run walk(1, true)
		fi;
		run cpu(0);
#if CPUS > 1
		run cpu(1)
#endif
	}
}
