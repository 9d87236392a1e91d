/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A huge leaf whose protection is changed, against zap, faults, a split and the CPU:
 * rust/protect.rs, rust/protect/entry.rs, rust/walk/engine.rs, rust/walk/split.rs.
 *
 * PROPERTY a store after the call faults; what was mapped before a zap is not mapped
 *	after it; no dirty bit is lost
 *
 * One leaf of page frames. A split, in place, makes a table of it, whose entries are one
 * here. A zap looks without the lock, and passes over an entry that is none; whoever
 * locks looks again. What a fault maps anew is another mapping, by its number.
 *
 * FULL -DCHANGES=2 -DZAPS=2
 *
 * MUTANT protect_clear_first	protect_pud_race control_clear_first
 *	an entry is changed in place
 * MUTANT protect_stale_value	protect_pud_race control_stale_value
 *	its new value is made of the one that was exchanged
 * MUTANT skip_retry		protect_pud_race control_skip_retry
 *	a leaf that was split before it was locked is looked at again
 * MUTANT skip_flush		protect_pud_race control_no_flush
 *	the flush
 * MUTANT split_clear_first	split_race control_clear_dontneed
 *	a leaf that is split is invalid, and not none, until its table is there
 * MUTANT split_early_value	-
 *	and its bits are read after that
 */

#ifndef CHANGES
#define CHANGES	1
#endif
#ifndef ZAPS
#define ZAPS	1
#endif
#define FAULTS	2	/* that map something where nothing was */

mtype = { none, leaf, invalid, table };

/* The entry, or the entries of the table below it. */
mtype entry = leaf;
bool writable = true, dirty;
byte number = 1;	/* of the mapping */
bool locked;

bool tlb_writable, tlb_dirty;

bool owes;		/* a store is noted by the dirty bit alone */

byte numbers = 1;	/* of mappings that there were */
byte zapped;		/* those up to this one were zapped */
bool told;		/* the caller of protect may rely on a fault */
bool passed;

inline lock()
{
	atomic { !locked -> locked = true }
}

inline flush()
{
	atomic {
		tlb_writable = false;
		tlb_dirty = false
	}
}

inline set_entry(kind, may_write, is_dirty)
{
	entry = kind;
	writable = may_write;
	dirty = is_dirty
}

proctype protect()
{
	byte changes;
	bool copy;
	mtype seen;

	do
	:: changes < CHANGES ->
again:
		/* engine.rs: a look without the lock */
		atomic {
			seen = entry;
			if
			:: seen == none -> passed = true; goto done
			:: else
			fi
		};
before_lock:
		lock();
		if
		:: seen != table && entry != leaf ->
			/* It was split, or has vanished. */
#ifdef skip_retry
			atomic {
				printf("protect: the leaf has changed, and is passed over\n");
				passed = true;
				locked = false;
				goto done
			};
#else
			locked = false;
			goto again
#endif
		:: seen == table && entry != table ->
			locked = false;
			goto again
		:: else
		fi;
entry_changes_now:
		/* faults::protect_entry(): pudp_modify() in place, or not */
#if defined(protect_clear_first)
		atomic {
			printf("protect: the entry is cleared\n");
			copy = dirty;
			set_entry(none, false, false)
		};
		atomic {
			printf("protect: the entry is set again, read-only\n");
			set_entry(seen, false, copy)
		};
#elif defined(protect_stale_value)
		atomic {
			printf("protect: the new value is made, dirty %d\n", dirty);
			copy = dirty
		};
		atomic {
			printf("protect: the entry is set, dirty %d, was %d\n", copy, dirty);
			set_entry(seen, false, copy)
		};
#else
		atomic {
			printf("protect: the entry is read-only\n");
			writable = false
		};
#endif
		atomic {
			passed = true;
			locked = false
		};
done:
		skip;
		/* It takes itself for nested: see two_walks.pml. */
before_flush:
#ifndef skip_flush
		flush();
#endif
		atomic {
			printf("protect: returns\n");
			told = passed
		};
		changes++
	:: else -> break
	od
}

/* madvise(MADV_DONTNEED) of the kernel: zap_pud_range(), zap_huge_pud() */
proctype zap()
{
	byte zaps, upto;
	bool was_dirty;

	do
	:: zaps < ZAPS ->
		upto = numbers;
		if
		:: atomic { entry == none -> printf("zap: passes over nothing\n") }
		:: entry != none ->
			lock();
			/* Without it, the folio is marked under the lock: see zap.pml. */
			atomic {
				printf("zap: the entry is cleared, dirty %d\n", dirty);
				was_dirty = dirty;
				set_entry(none, false, false)
			};
			flush();
			atomic {
				owes = owes && !was_dirty;
				locked = false
			}
		fi;
		atomic {
			printf("zap: returns\n");
			zapped = upto
		};
		zaps++
	:: else -> break
	od
}

/* What the range of another call covers in part: walk/split.rs */
proctype split()
{
	bool may_write, is_dirty;

	if
	:: entry == leaf ->
		lock();
		if
		:: entry == leaf ->
			/* pudp_invalidate() */
#ifdef split_clear_first
			atomic {
				printf("split: the leaf is cleared\n");
				may_write = writable;
				is_dirty = dirty;
				set_entry(none, false, false)
			};
			flush();
#else
#ifdef split_early_value
			may_write = writable;
			is_dirty = dirty;
#endif
			atomic {
				printf("split: the leaf is invalid\n");
				entry = invalid
			};
			flush();
#ifndef split_early_value
			may_write = writable;
			is_dirty = dirty;
#endif
#endif
split_now:
			atomic {
				printf("split: a table takes its place\n");
				set_entry(table, may_write, is_dirty)
			}
		:: else
		fi;
		locked = false
	:: entry != leaf
	fi
}

inline store()
{
	printf("cpu: store\n");
	assert(!told)
}

proctype cpu()
{
end:
	do
	:: atomic { tlb_dirty -> store() }
	:: atomic { !tlb_dirty && (entry == leaf || entry == table) && writable ->
			tlb_writable = true;
			tlb_dirty = true;
			dirty = true;
			owes = true;
			store() }
	:: atomic { (entry == leaf || entry == table) && writable -> tlb_writable = true }
	:: atomic { entry == none && !locked && numbers <= FAULTS ->
			printf("cpu: a fault maps a leaf\n");
			numbers++;
			number = numbers;
			passed = false;
			told = false;
			set_entry(leaf, false, false) }
	:: atomic { (entry == leaf || entry == table) && !writable && !locked ->
			printf("cpu: a write fault\n");
			flush();
			passed = false;
			told = false;
			writable = true }
	:: atomic { tlb_writable -> flush() }
	od
}

proctype look()
{
end:
	atomic { !locked && zapped > 0 -> assert(entry == none || number > zapped) }
}

proctype look_dirty()
{
end:
	atomic { !locked && owes -> assert(dirty) }
}

init {
	atomic {
		run protect();
		run zap();
		run split();
		run cpu();
		run look();
		run look_dirty()
	}
}
