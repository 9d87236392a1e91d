/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trackers of rust/track/file.rs in mode fast: one page of one file, and two
 * trackers. Either a process that maps it all the time, with all that takes the dirty
 * bit or changes the contents; or one that maps it, stores and unmaps; or, with larger
 * bounds, both. Each has a CPU with a TLB.
 *
 * PROPERTY a change that was complete before the call of begin() is in its epoch, unless
 *	an earlier epoch has the page, and the change was in place when its begin() returned
 *
 * A page-table lock is taken with the first step under it, and released with the last:
 * between any two, others may come. The marks of trackers are under no lock.
 *
 * FULL -DBOTH
 *
 * MUTANT track_skip_stored	track_file_race control_skip_stored
 *	a store that is told is not marked
 * MUTANT track_skip_replaced	track_file_race control_skip_replaced
 *	contents that are replaced are not marked
 * MUTANT filemap_skip_tell	track_file_race control_skip_tell
 *	who harvests tells nobody
 * MUTANT track_skip_walk	track_file_race control_skip_walk
 *	begin() takes marks alone
 * MUTANT track_skip_late	track_file_race control_skip_late
 *	marks that come while begin() walks are left to the next epoch
 * MUTANT track_skip_abort	track_file_race control_skip_abort
 *	an aborted epoch does not give its page back
 * MUTANT late_not_left		-
 *	and are not left to the next one, when they count for this
 * MUTANT take_after_walk	-
 *	marks are taken once, after the walk
 * MUTANT deaf_to_others	-
 *	who harvests hears nothing while it tells, instead of not itself
 * MUTANT tell_early		-
 *	who takes a bit tells before it locks the page table, and not after that
 * MUTANT tell_unlocked		-
 *	who takes a bit tells when it has released the lock of the page table
 * MUTANT tell_after_flush	-
 *	who harvests tells after the flush at the end of its scope
 * MUTANT skip_flush		-
 *	no flush of what begin() has cleaned
 * MUTANT skip_batched		-
 *	no flush of what reclaim has left to be flushed later
 * MUTANT skip_nested_check	-
 *	no flush of what another harvest has cleaned and not flushed yet
 * MUTANT skip_pending		-
 *	a harvest does not say that it owes a flush
 * MUTANT flush_after_unlink	-
 *	munmap() flushes when nobody finds the mapping any more
 * MUTANT write_told_first	-
 *	write(2) tells before the contents are in place
 * MUTANT truncate_told_first	-
 *	and so does truncation
 */

#ifndef STORES
#define STORES	2	/* and other changes, at the most */
#endif
#ifndef EPOCHS
#define EPOCHS	1	/* of the second tracker; the first has one more */
#endif

#define P	0	/* the process that stays */
#define Q	1	/* the one that comes and goes */
#define NOBODY	2

/* The mapping of each, its entry, and what its CPU knows. */
bool mapped[2];		/* the VMA is in i_mmap */
bool here[2], dirty[2];	/* the entry */
bool locked[2];		/* its page-table lock */
bool tlb[2];		/* the CPU knows it as dirty: a store leaves nothing in the entry */
byte pending[2];	/* mm->tlb_flush_pending */
bool batched;		/* reclaim owes a flush of process P */

byte walks;		/* that hold i_mmap_rwsem for reading */
byte left = STORES;
byte ended;		/* trackers that are through */

/* Of tracker 0 and 1 */
bool there[2];		/* it subscribes */
bool marks[2];
bool owed[2];		/* changed, and not reported yet */
bool changing[2];	/* the same, by a call that has not returned */
#ifdef deaf_to_others
bool deaf[2];
#endif

/* The contents change. */
inline change()
{
	owed[0] = there[0];
	owed[1] = there[1]
}

/* They do so inside of a call, and the call returns. */
inline begin_change()
{
	printf("a call changes the contents\n");
	changing[0] = there[0];
	changing[1] = there[1]
}

inline end_change()
{
	owed[0] = owed[0] || changing[0];
	owed[1] = owed[1] || changing[1];
	changing[0] = false;
	changing[1] = false
}

/* Watch::changed() */
inline mark(t)
{
#ifdef deaf_to_others
	marks[t] = marks[t] || (there[t] && !deaf[t])
#else
	marks[t] = there[t]
#endif
}

inline tell_stored()
{
	printf("told: stored\n");
#ifndef track_skip_stored
	mark(0);
	mark(1);
#endif
	skip
}

inline tell_replaced()
{
	printf("told: replaced\n");
#ifndef track_skip_replaced
	mark(0);
	mark(1);
#endif
	skip
}

inline flush(m)
{
	printf("flush of cpu %d\n", m);
	tlb[m] = false
}

/* Who takes a dirty bit in the kernel tells before it releases the lock. */
inline tell_and_unlock(m)
{
#ifdef tell_unlocked
	locked[m] = false;
#endif
	atomic {
#ifndef tell_early
		if
		:: took -> tell_stored()
		:: else
		fi;
#endif
		took = false;
#ifndef tell_unlocked
		locked[m] = false
#endif
	}
}

#ifdef tell_early
#define TELL_EARLY	atomic { tell_stored() };
#define HARVEST_EARLY(t) atomic { took = true; tell_harvest(t) };
#else
#define TELL_EARLY
#define HARVEST_EARLY(t)
#endif

/* Tracker t does not hear what it tells itself. Tracker 2 is none. */
inline tell_harvest(t)
{
#if !defined(filemap_skip_tell) && !defined(track_skip_stored)
	if
	:: took && t != 0 -> printf("harvest of %d: told\n", t); mark(0)
	:: else
	fi;
	if
	:: took && t != 1 -> printf("harvest of %d: told\n", t); mark(1)
	:: else
	fi;
#endif
	skip
}

/* clean_record_entries(), in a FlushScope */
inline take_bit(t, m)
{
	locked[m] = true;
#ifndef skip_pending
	pending[m]++;
#endif
#ifdef deaf_to_others
	if
	:: t < 2 -> deaf[t] = true
	:: else
	fi;
#endif
	took = here[m] && dirty[m];
	printf("harvest of %d: entry of %d, dirty %d\n", t, m, took);
	if
	:: took -> dirty[m] = false
	:: else
	fi
}

/* tell_stored(), tell_leaf_stored() */
inline harvest_told(t, m)
{
	atomic {
#if !defined(tell_early) && !defined(tell_unlocked) && !defined(tell_after_flush)
		tell_harvest(t);
#endif
#ifdef deaf_to_others
		if
		:: t < 2 -> deaf[t] = false
		:: else
		fi;
#endif
		locked[m] = false
	}
#ifdef tell_unlocked
	atomic { tell_harvest(t) }
#endif
}

/* FlushScope::flush_locked(), and the end of the scope */
inline end_scope(t, m)
{
#ifndef skip_flush
	if
#ifdef skip_nested_check
	:: took -> flush(m)
#else
	:: took || pending[m] > 1 -> flush(m)
#endif
	:: else
	fi;
#endif
#ifndef skip_batched
	if
	:: m == P && batched -> flush(P); batched = false
	:: else
	fi;
#endif
#ifndef skip_pending
	pending[m]--;
#endif
#ifdef tell_after_flush
	tell_harvest(t);
#endif
	took = false
}

/* The CPU of process m. */
proctype cpu(byte m)
{
	do
	/* Stores, through the TLB if it knows the page as dirty; else through the entry. */
	:: atomic { left > 0 && (tlb[m] || here[m]) ->
		left--;
		printf("cpu %d: stores, dirty in the TLB %d\n", m, tlb[m]);
		if
		:: tlb[m]
		:: else -> dirty[m] = true; tlb[m] = true
		fi;
		change()
	   }
	/* A load, which makes the TLB know what the entry says; and the TLB forgets. */
	:: atomic { here[m] && dirty[m] && !tlb[m] -> tlb[m] = true }
	:: atomic { tlb[m] -> flush(m) }
	/* A write fault makes an entry that is dirty, a read fault one that is clean. */
	:: atomic { m == P && !here[m] && !locked[m] -> here[m] = true; dirty[m] = true }
	:: atomic { m == P && !here[m] && !locked[m] -> here[m] = true }
	/* Reclaim flushes what it owes: try_to_unmap_flush_dirty(). */
	:: atomic { m == P && batched -> flush(m); batched = false }
	:: atomic { ended == 2 -> break }
	od
}

/* mmap(), a fault, and munmap(). */
proctype come_and_go()
{
	bool took;

	do
	:: atomic { left > 0 && walks == 0 ->
		printf("mmap and a write fault\n");
		mapped[Q] = true;
		here[Q] = true;
		dirty[Q] = true
	   }
	   TELL_EARLY
	   /* zap_present_folio_ptes(), with pending raised by tlb_gather_mmu() */
	   atomic { !locked[Q] ->
		locked[Q] = true;
		pending[Q]++;
		took = dirty[Q];
		printf("munmap: entry goes, dirty %d\n", took);
		here[Q] = false;
		dirty[Q] = false
	   }
#ifndef flush_after_unlink
#ifndef tell_unlocked
	   /* The kernel tells before the flush; LockedGather::settle() after it. */
	   if
	   :: atomic { took ->
#ifndef tell_early
		tell_stored();
#endif
		took = false
	      }
	   :: skip
	   fi;
#endif
	   atomic { flush(Q) }
#endif
	   tell_and_unlock(Q);
	   /* free_pgtables() */
	   atomic { walks == 0 -> mapped[Q] = false; printf("munmap: VMA goes\n") }
	   /* tlb_finish_mmu() */
	   atomic { flush(Q); pending[Q]-- }
	:: atomic { ended == 2 -> break }
	od
}

/* What else becomes of the page. */
proctype others()
{
	bool took;

	do
	/* Reclaim: try_to_unmap_one() */
	:: TELL_EARLY
	   atomic { !locked[P] && here[P] ->
		locked[P] = true;
		took = dirty[P];
		printf("reclaim: entry goes, dirty %d\n", took);
		here[P] = false;
		dirty[P] = false;
		/* set_tlb_ubc_flush_pending(), also if the entry was clean */
		batched = batched || took
	   }
	   tell_and_unlock(P)
	/* Writeback: page_vma_mkclean_one() */
	:: TELL_EARLY
	   atomic { !locked[P] && here[P] && dirty[P] ->
		locked[P] = true;
		took = true;
		printf("writeback: takes the bit\n");
		dirty[P] = false
	   }
	   atomic { flush(P) }
	   tell_and_unlock(P)
	/* A harvest of no tracker: CLEAN_RECORD. */
	:: HARVEST_EARLY(2)
	   atomic { !locked[P] && here[P] && dirty[P] -> take_bit(2, P) }
	   harvest_told(2, P);
	   atomic { end_scope(2, P) }
	/* write(2) */
	:: atomic { left > 0 ->
		left--;
#ifdef write_told_first
		tell_stored()
#else
		begin_change()
#endif
	   }
	   atomic {
#ifdef write_told_first
		begin_change();
#else
		tell_stored();
#endif
		end_change()
	   }
	/* truncate_inode_folio(), when no entry is left */
	:: atomic { left > 0 && !here[P] && !here[Q] ->
		left--;
#ifdef truncate_told_first
		tell_replaced()
#else
		begin_change()
#endif
	   }
	   atomic {
#ifdef truncate_told_first
		begin_change();
#else
		tell_replaced();
#endif
		end_change()
	   }
	:: atomic { ended == 2 -> break }
	od
}

/* The next mapping that the walk finds. */
inline find_mapping()
{
	if
	:: m == P && !mapped[P] -> m = Q
	:: else
	fi;
	if
	:: m == Q && !mapped[Q] -> m = NOBODY
	:: else
	fi
}

proctype tracker(byte me; byte epochs)
{
	bool due;		/* it changed before the call */
	bool in_epoch, took;
	byte n, m;

	do
	:: n < epochs ->
		/* The call of File::begin(), and Bits::take() */
		atomic {
			n++;
			due = owed[me];
			printf("tracker %d: begin, marked %d\n", me, marks[me]);
#ifndef take_after_walk
			in_epoch = marks[me];
			marks[me] = false
#endif
		}
track_marks_taken:
#ifndef track_skip_walk
		/* walk_page_mapping() */
		atomic { walks++; m = P; find_mapping() }
		do
		:: m != NOBODY ->
			HARVEST_EARLY(me)
			atomic { !locked[m] -> take_bit(me, m); in_epoch = in_epoch || took }
			harvest_told(me, m);
			atomic { end_scope(me, m); m++; find_mapping() }
		:: m == NOBODY -> break
		od;
		atomic { walks--; m = P }
#endif
		/* Bits::copy(). The return: what is in the epoch is read from now on. */
		atomic {
#ifndef track_skip_late
			in_epoch = in_epoch || marks[me];
#endif
#if defined(late_not_left) || defined(take_after_walk)
			marks[me] = false;
#endif
			printf("tracker %d: returns, page in epoch %d\n", me, in_epoch);
			assert(in_epoch || !due);
			if
			:: in_epoch ->	/* commit() */
				owed[me] = false;
				changing[me] = false
			:: in_epoch ->	/* abort() */
#ifndef track_skip_abort
				marks[me] = true;
#endif
				owed[me] = true
			:: else
			fi;
			in_epoch = false;
			due = false
		}
	:: n == epochs -> break
	od;
	atomic {
		there[me] = false;
		marks[me] = false;
		owed[me] = false;
		changing[me] = false;
		ended++
	}
}

init {
	atomic {
		/* The first epoch has the page; or there was one, and nothing happened since. */
		there[0] = true;
		there[1] = true;
		marks[1] = true;
		if
		:: marks[0] = true
		:: skip
		fi;
		if
		:: mapped[P] = true; here[P] = true; run cpu(P); run others()
		:: run cpu(Q); run come_and_go()
#ifdef BOTH
		:: mapped[P] = true; here[P] = true; run cpu(P); run others();
		   run cpu(Q); run come_and_go()
#endif
		fi;
		run tracker(0, EPOCHS + 1);
		run tracker(1, EPOCHS)
	}
}
