/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trackers of rust/track.rs in mode fast: one page of one address space, two
 * trackers, a CPU with a TLB, and all that takes the page or its dirty bit away.
 *
 * PROPERTY a page that changes between the return of one begin() and the call of the
 *	next is in the epoch of the latter; and no page that was stored to is dropped
 *	by reclaim without being written
 *
 * What a lock makes one step is in atomic {}: the page-table lock, mostly. Between two
 * of these, anybody may come.
 *
 * FULL -DSTORES=3
 *
 * MUTANT track_skip_mark	track_race mark
 *	a callback marks nothing
 * MUTANT track_skip_in_flight	track_race in_flight
 *	begin() leaves nothing marked for what is being invalidated
 * MUTANT track_skip_late	track_race late
 *	marks that come while begin() walks are left to the next epoch
 * MUTANT skip_flush		track_race flush
 *	no flush of what begin() has cleaned
 * MUTANT skip_batched		-
 *	no flush of what reclaim has left to be flushed later
 * MUTANT track_skip_others	track_race others
 *	what is taken is not told to the other tracker
 * MUTANT skip_lock		-
 *	two begin() at a time
 * MUTANT track_skip_transfer	track_race transfer
 *	the folio is not marked dirty for a bit that was taken
 * MUTANT skip_pin		-
 *	the folio is not pinned until then
 * MUTANT track_skip_new	track_race new_page
 *	a page that comes to where nothing was is not looked for
 * MUTANT track_skip_hole	track_race hole
 *	a hole is not marked for the next epoch
 * MUTANT track_skip_abort	track_race abort
 *	an aborted epoch does not give its page back
 */

#define NONE	0	/* mapped, no entry */
#define HERE	1	/* a present entry */
#define SWAPPED	2	/* an entry for a page elsewhere: in swap, or of the file */
#define HOLE	3	/* nothing is mapped */

#define CLEAN	1
#define DIRTY	2	/* it has to come before the page is written */

#ifndef STORES
#define STORES	2	/* of the CPU, and changes of other kinds, at the most */
#endif
#ifndef EPOCHS
#define EPOCHS	1	/* of the second tracker; the first has one more */
#endif

byte entry = HERE;
bool dirty;		/* of the entry */
bool tlb, tlb_dirty;	/* the CPU knows the page, and as dirty */
byte batched;		/* a flush that reclaim owes: CLEAN or DIRTY */
bool folio_dirty;
byte pinned;		/* pins of trackers */
bool unsaved;		/* stored to, and not written since */
byte in_flight;
byte left = STORES;
byte ended;		/* trackers that are through */

/* Of tracker 0 and 1 */
bool marks[2];
bool there[2];
bool owed[2];		/* changed, and not reported yet */
bool locked;

/* The contents change. */
inline change()
{
	owed[0] = true;
	owed[1] = true;
	unsaved = true;
}

inline mark()
{
#ifdef track_skip_mark
	skip
#else
	marks[0] = true;
	marks[1] = true
#endif
}

inline flush()
{
	tlb = false;
	tlb_dirty = false;
}

/* Stores, through the TLB if it knows the page as dirty; else through the entry. */
active proctype cpu()
{
	do
	:: atomic { left > 0 && tlb && tlb_dirty -> left--; change() }
	:: atomic { left > 0 && entry == HERE ->
		left--;
		dirty = true;
		tlb = true;
		tlb_dirty = true;
		change()
	   }
	/* A load, which makes the TLB know what the entry says. */
	:: atomic { entry == HERE && !tlb -> tlb = true; tlb_dirty = dirty }
	/* Write faults, which make the entry dirty: of swap, the file, or zeroes. */
	:: atomic { left > 0 && (entry == SWAPPED || entry == NONE) ->
		left--;
		entry = HERE;
		dirty = true;
		change()
	   }
	/* A read fault leaves it clean. */
	:: atomic { entry == SWAPPED -> entry = HERE; dirty = false }
	/* The TLB forgets. */
	:: atomic { tlb -> flush() }
	:: atomic { ended == 2 -> break }
	od
}

/* An invalidation: it takes the entry away, or only the dirty bit. */
active proctype invalidate()
{
	do
	:: atomic { ended < 2 && in_flight == 0 ->
		/* invalidate_range_start(): the callbacks, before anything changes. */
		in_flight++;
		mark()
	   }
	   if
	   /* Reclaim, whose flush comes later. */
	   :: atomic {
		entry == HERE ->
		if
		:: dirty -> batched = DIRTY; folio_dirty = true
		:: !dirty && !batched -> batched = CLEAN
		:: else
		fi;
		entry = SWAPPED;
		dirty = false
	      }
	   /* munmap() of a shared page: a dirty entry is flushed under the lock. */
	   :: atomic {
		entry == HERE ->
		folio_dirty = folio_dirty || dirty;
		entry = SWAPPED;
		dirty = false;
		flush()
	      }
	   /* Writeback: the bit goes to the folio, the entry stays. */
	   :: atomic {
		entry == HERE ->
		folio_dirty = folio_dirty || dirty;
		dirty = false;
		flush()
	      }
	   /*
	    * MADV_DONTNEED of private memory: the contents are new. Not while the tracker has
	    * the old folio, or the model would need two.
	    */
	   :: atomic {
		left > 0 && (entry == HERE || entry == SWAPPED) && !pinned ->
		left--;
		entry = NONE;
		dirty = false;
		folio_dirty = false;
		flush();
		change();
		unsaved = false
	      }
	   /* munmap(): nothing is mapped then. */
	   :: atomic {
		left > 0 && !pinned ->
		left--;
		entry = HOLE;
		dirty = false;
		folio_dirty = false;
		flush();
		change();
		unsaved = false
	      }
	   :: skip
	   fi;
	   atomic { in_flight-- }
	:: atomic { ended == 2 -> break }
	od
}

/* What comes without an event for the page: a new mapping, and a move by userfaultfd. */
active proctype appear()
{
	do
	:: atomic { left > 0 && entry == HOLE ->
		left--;
		entry = NONE;
		change();
		unsaved = false
	   }
	:: atomic { left > 0 && entry == NONE ->
		left--;
		entry = HERE;
		dirty = false;
		folio_dirty = true;
		change()
	   }
	:: atomic { ended == 2 -> break }
	od
}

/* Reclaim goes on: it flushes, and writes the page, or drops one that is clean. */
active proctype pageout()
{
	do
	:: atomic { batched -> flush(); batched = 0 }
	:: atomic { entry == SWAPPED && batched != DIRTY && !pinned && folio_dirty ->
		folio_dirty = false;
		unsaved = false
	   }
	:: atomic { entry == SWAPPED && batched != DIRTY && !pinned && !folio_dirty ->
		assert(!unsaved)
	   }
	/* Writeback of a page that is mapped, whose entry was cleaned before. */
	:: atomic { entry == HERE && !dirty && !tlb_dirty && !pinned && folio_dirty ->
		folio_dirty = false;
		unsaved = false
	   }
	:: atomic { ended == 2 -> break }
	od
}

proctype tracker(byte me; byte epochs)
{
	bool due, in_epoch, took, next;
	byte n;

	do
	:: n < epochs ->
		n++;
		/* The call, and what was collected. */
		atomic {
#ifndef skip_lock
			!locked -> locked = true;
#endif
			due = owed[me];
			in_epoch = marks[me];
			marks[me] = false
		}
#ifndef track_skip_in_flight
		atomic {
			if
			:: in_flight > 0 -> marks[me] = true
			:: else
			fi
		}
#endif
		/* The walk. */
		atomic {
			took = entry == HERE && dirty;
			if
			:: took ->
				dirty = false;
#ifndef skip_pin
				pinned++;
#endif
				in_epoch = true
			:: else
			fi;
			next = entry == HERE || entry == SWAPPED;
#ifndef track_skip_hole
			if
			:: entry == HOLE -> marks[me] = true; in_epoch = true
			:: else
			fi
#endif
		}
		atomic {
#ifndef skip_flush
			if
			:: took -> flush()
			:: else
			fi;
#endif
#ifndef skip_batched
			if
			:: batched -> flush(); batched = 0
			:: else
			fi;
#endif
			skip
		}
		/* The folio, and the other tracker. */
		atomic {
			if
			:: took ->
#ifndef track_skip_transfer
				folio_dirty = true;
#endif
#ifndef skip_pin
				pinned--;
#endif
#ifndef track_skip_others
				marks[1 - me] = true;
#endif
				skip
			:: else
			fi
		}
		/* The return: what is in the epoch is read from now on. */
		atomic {
#ifndef track_skip_new
			in_epoch = in_epoch || (next && !there[me]);
#endif
			there[me] = next;
#ifndef track_skip_late
			in_epoch = in_epoch || marks[me];
#endif
			locked = false;
			assert(in_epoch || !due);
			if
			:: in_epoch ->	/* commit() */
				owed[me] = false
			:: in_epoch ->	/* abort() */
				owed[me] = true;
#ifndef track_skip_abort
				marks[me] = true
#endif
			:: else
			fi
		}
	:: n == epochs -> break
	od;
	atomic { ended++ }
}

init {
	atomic {
		/* The first epoch has the page. */
		marks[0] = true;
		marks[1] = true;
		run tracker(0, EPOCHS + 1);
		run tracker(1, EPOCHS)
	}
}
